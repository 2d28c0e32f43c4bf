"""circuitsvis views that work offline: the bundle once a page, properties serialised safely, ids that do not change."""

import html
import importlib.resources
import json
from collections.abc import Sequence
from typing import Any

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
        "attention": _rounded(attention[:shown]),
        "tokens": list(tokens),
        "attentionHeadNames": list(head_names[:shown]),
        "maskUpperTri": True,
    }
    return _view(view_id, "AttentionHeads", props)


def colored_tokens_view(
    view_id: str, tokens: Sequence[str], values: Float[np.ndarray, "token kind"], names: Sequence[str]
) -> str:
    """HTML of a circuitsvis `ColoredTokensMulti` view: a prompt's tokens coloured by one of several values each.

    Args:
        view_id: unique on the page, which must hold `circuitsvis_bundle()` before it.
        tokens: as text; any string is safe.
        values: finite; rounded to three places.
        names: of the kinds of value, such as heads.
    """
    props = {"tokens": list(tokens), "values": _rounded(values), "labels": list(names)}
    return _view(view_id, "ColoredTokensMulti", props)


def topk_tokens_view(
    view_id: str,
    samples: Sequence[Sequence[str]],
    values: Sequence[Float[np.ndarray, "layer token head"]],
    sample_names: Sequence[str],
    *,
    k: int = 5,
) -> str:
    """HTML of a circuitsvis `TopkTokens` view: the tokens of each prompt on which each head's value is largest.

    Args:
        view_id: unique on the page, which must hold `circuitsvis_bundle()` before it.
        samples: the tokens of each prompt, as text; any string is safe.
        values: of each prompt; finite, rounded to three places.
        sample_names: of the prompts.
        k: how many tokens, the largest and the smallest, to keep; fewer where a prompt has fewer.

    Prompts beyond `samples_that_fit(values[0].shape, k)` are left out; say so in the caption.
    """
    shown = samples_that_fit(values[0].shape, k)
    props: dict[str, Any] = {name: [] for name in ("topkIdxs", "topkVals", "bottomkIdxs", "bottomkVals")}
    for of_sample in values[:shown]:
        order = np.argsort(-of_sample, axis=1, kind="stable")
        for name, chosen in (("topk", order[:, :k]), ("bottomk", order[:, -k:])):
            props[f"{name}Idxs"].append(chosen.tolist())
            props[f"{name}Vals"].append(_rounded(np.take_along_axis(of_sample, chosen, axis=1)))
    props |= {"tokens": [list(tokens) for tokens in samples[:shown]], "sampleLabels": list(sample_names[:shown])}
    return _view(view_id, "TopkTokens", props | {"firstDimensionName": "Layer", "thirdDimensionName": "Head"})


def samples_that_fit(shape: tuple[int, ...], k: int) -> int:
    """How many prompts of values `[layer token head]` a top-k view may hold: at least one, at most `CELLS_AT_MOST`
    numbers.
    """
    return max(1, CELLS_AT_MOST // (4 * k * shape[0] * shape[2]))


def _view(view_id: str, component: str, props: dict[str, Any]) -> str:
    call = f"CircuitsVis.render({script_json(view_id)}, CircuitsVis.{component}, {script_json(props)});"
    return f'<div class="view" id="{html.escape(view_id, quote=True)}"></div>\n<script>{call}</script>'


def _rounded(values: Float[np.ndarray, "..."]) -> Any:
    """As nested lists, to three places."""
    return np.round(np.asarray(values, dtype=np.float64), 3).tolist()


def heads_that_fit(n_tokens: int) -> int:
    """How many heads of a prompt of `n_tokens` one view may hold: at least one, at most `CELLS_AT_MOST` values."""
    return max(1, CELLS_AT_MOST // max(1, n_tokens) ** 2)


def script_json(value: object) -> str:
    """JSON that cannot end a script element or a line: `<`, `>`, `&` and the Unicode line separators are escaped."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
