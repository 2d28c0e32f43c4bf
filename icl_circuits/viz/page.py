"""The report as one self-contained page that opens without a network."""

import base64
import html
import importlib.resources
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from icl_circuits.viz.views import circuitsvis_bundle


@dataclass(frozen=True)
class Table:
    """A table of text cells."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class MarkedToken:
    """A token of a prompt, as text; label positions and the last position are marked."""

    text: str
    position: int
    kind: Literal["plain", "label", "last"]


@dataclass(frozen=True)
class Section:
    """A heading, its answer in a sentence, what it shows, and how to read that."""

    title: str
    text: str
    """How it was measured and what its words mean: folded where there is an answer."""
    table: Table | None = None
    figure: Path | None = None
    """An SVG file, put into the page."""
    views: tuple[tuple[str, str], ...] = ()
    """Captions and the HTML of `viz.views`."""
    marked: tuple[MarkedToken, ...] = ()
    """A prompt's tokens."""
    link: str = ""
    """A file beside the page, to open from it."""
    answer: str = ""
    """What was found, in a sentence of words and figures."""
    drawing: str = ""
    """An SVG element, shown on a light ground."""


def render_page(
    title: str,
    finding: str,
    sections: Sequence[Section],
    *,
    also: Sequence[str] = (),
    described: str = "",
    first: Sequence[Section] = (),
) -> str:
    """The page's HTML. Every string is escaped; only figures, drawings and views bring markup of their own.

    Args:
        title: its heading.
        finding: what was found, in a sentence.
        sections: what follows, with a list of contents.
        also: further findings, a sentence or two each.
        described: what was run.
        first: what the first screen shows beside the finding: figures, and drawings below them.
    """
    needs_bundle = any(section.views for section in sections)
    return template("page.html.jinja").render(
        title=title,
        finding=finding,
        sections=sections,
        also=also,
        described=described,
        first=first,
        bundle=Markup(circuitsvis_bundle()) if needs_bundle else "",
    )


def template(name: str) -> Template:
    """A template of this package: strings are escaped, and names that are not given are errors."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg_uri"] = lambda path: svg_uri(path.read_bytes())
    environment.filters["drawing_uri"] = lambda drawing: svg_uri(drawing.encode("utf-8", "replace"))
    environment.filters["is_wide"] = lambda path: _is_wide(path.read_text(encoding="utf-8"))
    environment.filters["markup"] = Markup
    return environment.from_string(importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


def svg_uri(drawing: bytes) -> str:
    """An SVG file as the source of an image."""
    return "data:image/svg+xml;base64," + base64.b64encode(drawing).decode("ascii")


def _is_wide(drawing: str) -> bool:
    """Whether an SVG file is more than a column of a paper wide."""
    size = re.search(r'viewBox="\S+ \S+ (\S+)', drawing)
    return size is not None and float(size.group(1)) > 300


def framed(page: str) -> str:
    """A page as the display of a notebook's cell, in a sandboxed frame."""
    source = html.escape(page, quote=True)
    return f'<iframe sandbox="allow-scripts" style="width: 100%; height: 860px; border: 0" srcdoc="{source}"></iframe>'
