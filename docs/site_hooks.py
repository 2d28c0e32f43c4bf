"""Mathematics of the pages as MathML, which browsers draw by themselves: no script, no network."""

import re
from typing import Any

from latex2mathml.converter import convert

CODE, DISPLAY, INLINE = r"```.*?```|`[^`\n]*`", r"\$\$(?P<display>.+?)\$\$", r"\$(?P<inline>(?:[^$\n]|\n(?!\n))+)\$"
MATHEMATICS = re.compile(f"{CODE}|{DISPLAY}|{INLINE}", re.DOTALL)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace `$...$` and `$$...$$` outside code; mkdocs calls this for every page."""

    def drawn(found: re.Match[str]) -> str:
        if found["display"]:
            return f'<div class="math">{convert(found["display"].strip(), display="block")}</div>'
        return convert(found["inline"]) if found["inline"] else found[0]

    return MATHEMATICS.sub(drawn, markdown)
