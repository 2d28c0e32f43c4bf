"""The figures of the report. They draw results and never compute them."""

from typing import TYPE_CHECKING

import numpy as np

from icl_circuits.heads import GroupEffects, HeadEffects, InContextHeads, LogProbIncrease
from icl_circuits.stats import bootstrap_mean
from icl_circuits.viz.style import ATTENTION_COLOUR, BETWEEN_COLOUR, MLP_COLOUR, TOP1_COLOUR, style

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure


def head_map(increase: LogProbIncrease, effects: HeadEffects, selected: InContextHeads) -> "matplotlib.figure.Figure":
    """Heat maps over layers and heads of both scores; selected heads are framed, heads not zeroed are hatched."""
    from matplotlib.figure import Figure

    static = increase.head_means()
    causal = np.full(static.shape, np.nan)
    for head, drop in zip(effects.heads, effects.log_prob_drop.mean(axis=1), strict=True):
        causal[head.layer, head.head] = drop
    n_heads = static.shape[1]
    with style():
        figure = Figure(figsize=(7.0, max(3.6, 1.3 + 0.34 * n_heads)))
        above, below = figure.subplots(2, 1)
        _heat_map(above, static, selected, "Log-probability increase (nats)", figure)
        _heat_map(below, causal, selected, "Log-probability lost when zeroed (nats)", figure)
        below.set_xlabel("layer")
    return figure


def _heat_map(
    axes: "matplotlib.axes.Axes",
    values: np.ndarray,
    selected: InContextHeads,
    title: str,
    figure: "matplotlib.figure.Figure",
) -> None:
    """One `[layer head]` map, zero at the middle of the colours."""
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    limit = float(np.nanmax(np.abs(values))) or 1.0
    n_layers, n_heads = values.shape
    axes.add_patch(
        Rectangle((-0.5, -0.5), n_layers, n_heads, facecolor="white", edgecolor="0.8", hatch="////", lw=0, zorder=-1)
    )
    image = axes.imshow(values.T, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    for head in selected.heads:
        axes.add_patch(
            Rectangle((head.layer - 0.5, head.head - 0.5), 1, 1, fill=False, edgecolor="black", lw=1.4, clip_on=False)
        )
    axes.set_title(title, loc="left")
    axes.set_ylabel("head")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02)


def layer_bars(increase: LogProbIncrease) -> "matplotlib.figure.Figure":
    """Log-probability increase of attention and MLP layers, interleaved, with 95 % bootstrap intervals over prompts."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    n_layers = increase.attn.shape[1]
    with style():
        figure = Figure(figsize=(7.0, 2.8))
        axes = figure.subplots()
        for offset, values, colour, hatch, name in (
            (0.0, increase.attn, ATTENTION_COLOUR, "", "attention"),
            (0.5, increase.mlp, MLP_COLOUR, "///", "MLP"),
        ):
            bars = [bootstrap_mean(values[:, layer]) for layer in range(n_layers)]
            means = np.array([bar.mean for bar in bars])
            errors = np.array([[bar.mean - bar.low for bar in bars], [bar.high - bar.mean for bar in bars]])
            axes.bar(
                np.arange(n_layers) + offset,
                means,
                width=0.48,
                yerr=errors,
                color=colour,
                edgecolor="white",
                hatch=hatch,
                label=name,
                error_kw={"lw": 0.7, "ecolor": "0.25"},
            )
        axes.axhline(0, color="0.3", lw=0.6)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16))
        axes.set_xlim(-0.5, n_layers - 0.1)
        axes.set_xlabel("layer (MLPs at half steps)")
        axes.set_ylabel("log-probability increase\n(nats, 95 % intervals)")
        axes.legend(loc="upper left")
    return figure


def accuracy_bars(effects: GroupEffects) -> "matplotlib.figure.Figure":
    """Accuracy by both rules for each group of zeroed heads, with 95 % bootstrap intervals over prompts."""
    from matplotlib.figure import Figure

    frame = effects.to_frame()
    frame = frame[frame["gold"].isna()].reset_index(drop=True)
    shown = frame["zeroed"].str.replace(" heads", "\nheads")
    names = [f"{name}\n({n})" if n else name for name, n in zip(shown, frame["n_heads"], strict=True)]
    with style():
        figure = Figure(figsize=(max(5.5, 1.1 * len(names)), 3.0))
        axes = figure.subplots()
        for offset, rule, colour, hatch, label in (
            (-0.2, "top1", TOP1_COLOUR, "", "top-1"),
            (0.2, "between_labels", BETWEEN_COLOUR, "///", "between labels"),
        ):
            means = frame[rule].to_numpy()
            low, high = frame[f"{rule}_low"].to_numpy(), frame[f"{rule}_high"].to_numpy()
            axes.bar(
                np.arange(len(names)) + offset,
                means,
                width=0.38,
                yerr=np.stack([means - low, high - means]),
                color=colour,
                edgecolor="white",
                hatch=hatch,
                label=label,
                error_kw={"lw": 0.9, "ecolor": "0.2", "capsize": 2},
            )
        axes.axhline(1 / len(effects.labels), color="0.3", lw=0.9, ls="--", label="chance between labels")
        axes.set_xticks(range(len(names)), names)
        axes.set_ylim(0, 1)
        axes.set_xlabel("heads zeroed (how many)")
        axes.set_ylabel("accuracy, 95 % intervals")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure
