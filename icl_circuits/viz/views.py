"""circuitsvis views that work offline: the bundle once a page, properties serialised safely, ids that do not change."""

import base64
import gzip
import html
import importlib.resources
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

CELLS_AT_MOST = 150_000
"""Numbers in one view, at most about 0.35 MB of page. A view that would hold more is cut, and says so."""
UNPACK = """const unpacked = (packed) => new Response(new Blob([Uint8Array.from(atob(packed), (c) => c.charCodeAt(0))])
.stream().pipeThrough(new DecompressionStream("gzip"))).text();
const circuitsVis = unpacked("{}").then((code) => {
document.head.append(Object.assign(document.createElement("script"), { textContent: code })); });"""
"""JavaScript: text of `packed`, and a promise that is kept when `CircuitsVis` is there."""


def circuitsvis_bundle() -> str:
    """The installed circuitsvis wheel as JavaScript for a `<script>` element of a page, packed to a third of its size.

    It defines `circuitsVis`, a promise that is kept when `CircuitsVis` is there.
    """
    bundle = importlib.resources.files("circuitsvis") / "dist" / "cdn" / "iife.js"
    return UNPACK.replace("{}", packed(bundle.read_text(encoding="utf-8")))


def packed(text: str) -> str:
    """`text` in gzip and base64: the same for the same text."""
    return base64.b64encode(gzip.compress(text.encode("utf-8"), mtime=0)).decode("ascii")


def attention_view(
    view_id: str,
    tokens: Sequence[str],
    attention: Float[np.ndarray, "head pos src_pos"],
    head_names: Sequence[str],
) -> str:
    """HTML of a circuitsvis `AttentionHeads` view. The page must hold `circuitsvis_bundle()` before it.

    Args:
        view_id: unique on the page.
        tokens: the prompt's tokens as text; any string is safe.
        attention: attention probabilities, rounded to three places to keep pages small.
        head_names: such as `L10H7`.

    Of a prompt too long for the budget, the last tokens are shown, and as many heads as fit.
    """
    n_tokens = min(len(tokens), math.isqrt(CELLS_AT_MOST))
    n_heads = min(len(head_names), CELLS_AT_MOST // max(1, n_tokens) ** 2)
    props = {
        "attention": _rounded(attention[:n_heads, -n_tokens:, -n_tokens:]),
        "tokens": list(tokens[-n_tokens:]),
        "attentionHeadNames": list(head_names[:n_heads]),
        "maskUpperTri": True,
    }
    cut = _cut("last", n_tokens, len(tokens), "tokens") + _cut("first", n_heads, len(head_names), "heads")
    return _view(view_id, "AttentionHeads", props, cut)


def colored_tokens_view(
    view_id: str, tokens: Sequence[str], values: Float[np.ndarray, "token kind"], names: Sequence[str]
) -> str:
    """HTML of a circuitsvis `ColoredTokensMulti` view: a prompt's tokens coloured by one of several values each.

    Args:
        view_id: unique on the page, which must hold `circuitsvis_bundle()` before it.
        tokens: as text; any string is safe.
        values: finite; rounded to three places. All share one scale, symmetric about zero.
        names: of the kinds of value, such as heads; as many are shown as fit the budget.
    """
    n_kinds = min(len(names), max(1, CELLS_AT_MOST // max(1, len(tokens))))
    limit = float(np.abs(values).max(initial=1e-3))
    props = {"tokens": _escaped(tokens), "values": _rounded(values[:, :n_kinds]), "labels": list(names[:n_kinds])}
    props |= {"positiveBounds": [limit] * n_kinds, "negativeBounds": [-limit] * n_kinds}
    return _view(view_id, "ColoredTokensMulti", props, _cut("first", n_kinds, len(names), "heads"))


def topk_tokens_view(
    view_id: str,
    samples: Sequence[Sequence[str]],
    values: Sequence[Float[np.ndarray, "layer _ head"]],
    sample_names: Sequence[str],
    *,
    k: int = 5,
) -> str:
    """HTML of a circuitsvis `TopkTokens` view: the tokens of each prompt on which each head's value is largest.

    Args:
        view_id: unique on the page, which must hold `circuitsvis_bundle()` before it.
        samples: the tokens of each prompt, as text; any string is safe. As many prompts are shown as fit the budget.
        values: of each prompt `[layer token head]`; finite, rounded to three places.
        sample_names: of the prompts.
        k: how many tokens, the largest and the smallest, to keep; fewer where a prompt has fewer.
    """
    n_layers, _, n_heads = values[0].shape
    shown = min(len(samples), max(1, CELLS_AT_MOST // (4 * k * n_layers * n_heads)))
    props: dict[str, Any] = {name: [] for name in ("topkIdxs", "topkVals", "bottomkIdxs", "bottomkVals")}
    for of_sample in values[:shown]:
        order = np.argsort(-of_sample, axis=1, kind="stable")
        for name, chosen in (("topk", order[:, :k]), ("bottomk", order[:, -k:])):
            props[f"{name}Idxs"].append(chosen.tolist())
            props[f"{name}Vals"].append(_rounded(np.take_along_axis(of_sample, chosen, axis=1)))
    props |= {"tokens": [_escaped(tokens) for tokens in samples[:shown]], "sampleLabels": list(sample_names[:shown])}
    props |= {"firstDimensionName": "Layer", "thirdDimensionName": "Head"}
    return _view(view_id, "TopkTokens", props, _cut("first", shown, len(samples), "prompts"))


def _view(view_id: str, component: str, props: dict[str, Any], cut: str) -> str:
    found, render = script_json(view_id), f"CircuitsVis.{component}, JSON.parse(props)"
    render = f"document.getElementById({found}) && CircuitsVis.render({found}, {render})"  # unless it is gone by then
    call = f'Promise.all([unpacked("{packed(script_json(props))}"), circuitsVis]).then(([props]) => {render});'
    note = f"<p>To keep this page small:{cut}</p>\n" if cut else ""
    place = f'<div class="view {component}" id="{html.escape(view_id, quote=True)}"></div>'
    return f"{note}{place}\n<script>{call}</script>"


def _escaped(tokens: Sequence[str]) -> list[str]:
    """Tokens for the views that take them for HTML, as circuitsvis does but for its attention views."""
    return [html.escape(token, quote=False) for token in tokens]


def _cut(which: str, shown: int, n: int, what: str) -> str:
    """What is left out, where something is."""
    return f" the {which} {shown} of {n} {what}." if shown < n else ""


def _rounded(values: Float[np.ndarray, "..."]) -> Any:
    """As nested lists, to three places."""
    return np.round(np.asarray(values, dtype=np.float64), 3).tolist()


def script_json(value: object) -> str:
    """JSON that cannot end a script element or a line: `<`, `>`, `&` and the Unicode line separators are escaped."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
