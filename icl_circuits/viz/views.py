"""circuitsvis views that work offline: the bundle once a page, properties serialised safely, ids that do not change."""

import html
import importlib.resources
import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

CELLS_AT_MOST = 400_000
"""Attention values in one view, about 2.5 MB of page."""


def circuitsvis_bundle() -> str:
    """The JavaScript bundle of the installed circuitsvis wheel, safe inside a `<script>` element of a page."""
    bundle = importlib.resources.files("circuitsvis") / "dist" / "cdn" / "iife.js"
    return bundle.read_text(encoding="utf-8").replace("</script", "<\\/script")


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

    Heads beyond `heads_that_fit(len(tokens))` are left out; say so in the caption.
    """
    shown = heads_that_fit(len(tokens))
    props = {
        "attention": np.round(np.asarray(attention[:shown], dtype=np.float64), 3).tolist(),
        "tokens": list(tokens),
        "attentionHeadNames": list(head_names[:shown]),
        "maskUpperTri": True,
    }
    call = f"CircuitsVis.render({script_json(view_id)}, CircuitsVis.AttentionHeads, {script_json(props)});"
    return f'<div class="view" id="{html.escape(view_id, quote=True)}"></div>\n<script>{call}</script>'


def heads_that_fit(n_tokens: int) -> int:
    """How many heads of a prompt of `n_tokens` one view may hold: at least one, at most `CELLS_AT_MOST` values."""
    return max(1, CELLS_AT_MOST // max(1, n_tokens) ** 2)


def script_json(value: object) -> str:
    """JSON that cannot end a script element or a line: `<`, `>`, `&` and the Unicode line separators are escaped."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
