"""Where features flow: when each text has reached its label position, and each text the last position.

Two ways to see it, layer by layer (arXiv 2402.02872 says that it happens in shallow layers). Attention knock-out: cut
the edges along which a text flows directly, from some layer on; what the model loses had not arrived before. (What it
keeps may have come by another way.) Linear probe: read a text's class off the residual state, trained on other prompts.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_circuits.errors import InputError, Unfit
from icl_circuits.heads import Answers, as_answers, score_answers
from icl_circuits.interventions import KnockOut
from icl_circuits.models import LensModel, Place, require_layer
from icl_circuits.progress import tracked
from icl_circuits.prompts import PromptBatch, require_demonstrations
from icl_circuits.residual import Capture, answer_logits, final_state
from icl_circuits.stats import bootstrap_mean, generator

ROUTES = ("text -> label", "query -> last", "near -> last", "far -> last", "labels -> last")
"""Each demonstration's text to its own label position; the query's text, the texts of the nearer and of the farther
half of the demonstrations, and all label positions, to the last position."""


@dataclass(frozen=True)
class Flow:
    """Answers with one route cut in all layers from `layers[i]` up."""

    routes: tuple[str, ...]
    layers: tuple[int, ...]
    base: Answers
    """With nothing cut. Axes: prompt."""
    cut: Answers
    """Axes: route, layer, prompt."""

    def to_frame(self) -> pd.DataFrame:
        """One row a route and layer, with 95 % bootstrap intervals: accuracy by both rules, the logit difference, and
        its change from the same prompts uncut.

        The last layer of each route, `n_layers`, cuts nothing.
        """
        rows = []
        for i, route in enumerate(self.routes):
            for j, layer in enumerate(self.layers):
                row: dict[str, object] = {"route": route, "from_layer": layer}
                values = {name: getattr(self.cut, name)[i, j] for name in ("top1", "between_labels", "logit_diff")}
                values["logit_diff_change"] = self.cut.logit_diff[i, j] - self.base.logit_diff
                for name, of_prompts in values.items():
                    row |= bootstrap_mean(of_prompts.astype(float)).columns(name)
                rows.append(row)
        return pd.DataFrame(rows)


def _spread_layers(model: LensModel, layers: Sequence[int] | None) -> list[int]:
    """The layers asked for, in order, else about nine, evenly spread. Raises `InputError` for one that is not there."""
    n_layers = model.cfg.n_layers
    chosen = sorted(set(range(0, n_layers, -(-n_layers // 9)) if layers is None else layers) - {n_layers})
    for layer in chosen:
        require_layer(model, layer)
    return chosen


def route_edges(batch: PromptBatch, route: str) -> Bool[Tensor, "batch pos src_pos"]:
    """The attention edges of a route (see `ROUTES`): true at `[prompt, reading position, read position]`."""
    width = batch.tokens.shape[1]
    segments, n_demos = batch.segments, batch.n_demos
    is_label = torch.zeros_like(batch.is_text).scatter(1, batch.label_positions, True)
    position = torch.arange(width, device=batch.tokens.device)
    is_last = position == batch.last[:, None]
    is_text = (segments >= 0) & ~is_label & ~is_last
    if route == "text -> label":
        own = segments[:, :, None] == segments[:, None, :]
        return is_label[:, :, None] & is_text[:, None, :] & own
    sources = {
        "query -> last": is_text & (segments == n_demos),
        "near -> last": is_text & (segments < n_demos) & (segments >= n_demos // 2),
        "far -> last": is_text & (segments < n_demos // 2),
        "labels -> last": is_label,
    }
    return is_last[:, :, None] & sources[route][:, None, :]


@torch.no_grad()
def knock_out_flow(model: LensModel, batch: PromptBatch, *, layers: Sequence[int] | None = None) -> Flow:
    """Answer `batch` with each route cut from a layer on.

    What is lost when a route is cut from layer l on had not arrived before layer l; what is kept had, or took another
    way.

    Args:
        model: the model.
        batch: prompts with demonstrations.
        layers: first layers to cut from; default about nine, evenly spread. `n_layers` (nothing cut) is added.

    Raises:
        InputError: a layer that does not exist, prompts without demonstrations, or attention scores nothing reads.
    """
    require_demonstrations(batch, "for features to flow from")
    n_layers, first = model.cfg.n_layers, _spread_layers(model, layers)
    if not first:
        raise InputError(f"no layer to cut from: name some of 0..{n_layers - 1}")
    chunks = list(batch.chunks())
    base = torch.cat([score_answers(answer_logits(model, chunk), chunk) for chunk in chunks])
    rows = []
    for route, layer in tracked([(route, layer) for route in ROUTES for layer in first], "knocking out attention"):
        cut = tuple(range(layer, n_layers))
        parts = [score_answers(answer_logits(model, c, KnockOut(cut, route_edges(c, route))), c) for c in chunks]
        rows.append(torch.cat(parts))
    found = torch.stack(rows).unflatten(0, (len(ROUTES), len(first)))
    found = torch.cat([found, base.expand(len(ROUTES), 1, *base.shape)], 1)
    return Flow(ROUTES, (*first, n_layers), as_answers(base), as_answers(found))


# --- linear probes ----------------------------------------------------------------------------------------------------

PROBED = ("text at its label", "query at last", "nearest at last", "farthest at last")
"""The class of each demonstration's text, read at its label position; the classes of the query, of the last and of the
first demonstration, read at the last position."""


@dataclass(frozen=True)
class Probe:
    """Whether linear probes tell which of a prompt's classes a text is of, from the state that enters some layers.

    A probe answers between the classes that the prompt's demonstrations show, so chance is 1 over their number, also
    for a probe that reads which classes they are, or the query's class alone.
    """

    probed: tuple[str, ...]
    layers: tuple[int, ...]
    """The last, `n_layers`, is the final state."""
    right: Float[np.ndarray, "probe layer prompt"]
    """The share of a test prompt's samples that each of `probed` gets right; NaN for a prompt of a class that the
    training prompts do not show."""
    shuffled: Float[np.ndarray, "probe layer prompt"]
    """The same with the classes of the training samples shuffled."""

    def to_frame(self) -> pd.DataFrame:
        """One row a probe and layer: accuracy on test prompts, its 95 % bootstrap interval, and the shuffled
        control.
        """
        rows = []
        for p, name in enumerate(self.probed):
            for i, layer in enumerate(self.layers):
                known = np.isfinite(self.right[p, i])
                row: dict[str, object] = {"probe": name, "layer": layer}
                row |= bootstrap_mean(self.right[p, i][known]).columns("accuracy")
                rows.append(row | {"shuffled": bootstrap_mean(self.shuffled[p, i][known]).mean})
        return pd.DataFrame(rows)


def probe_flow(
    model: LensModel, train: PromptBatch, test: PromptBatch, *, layers: Sequence[int] | None = None, seed: int = 0
) -> Probe:
    """Train ridge classifiers on `train` and test them on `test`, for each text, place and layer.

    The classes are the data set's own (animal, country, ...), not the labels foo and bar. The ridge penalty is chosen
    by leave-one-out on the training samples (scikit-learn's `RidgeClassifierCV`).

    Args:
        model: the model.
        train: prompts to train on.
        test: prompts of other texts.
        layers: whose entering states to probe; default about nine, evenly spread. The final state is added.
        seed: of the shuffled control.

    Raises:
        InputError: prompts without demonstrations, or fewer than two classes.
    """
    for part in (train, test):
        require_demonstrations(part, "to probe for")
    classes = tuple(sorted({demo.category for prompt in train.prompts for demo in prompt.demos}))
    if len(classes) < 2:
        raise Unfit("the training prompts hold one class only, so there is nothing to tell apart: add classes")
    layers = (*_spread_layers(model, layers), model.cfg.n_layers)
    states = [_states(model, part, layers) for part in (train, test)]
    targets = [_targets(part, classes) for part in (train, test)]
    shown = np.zeros((len(test), len(classes)), bool)
    np.put_along_axis(shown, np.maximum(targets[1][PROBED[0]], 0), True, axis=1)
    known = np.logical_and.reduce([(target >= 0).all(axis=1) for target in targets[1].values()])
    rng = generator(seed)
    found = np.full((2, len(PROBED), len(layers), len(test)), np.nan)
    for i in tracked(range(len(layers)), "probing"):
        for p, name in enumerate(PROBED):
            (x, x_test), (y, y_test) = ([_samples(s[:, i], name) for s in states], [t[name] for t in targets])
            for control in range(2):
                train_y = rng.permutation(y.ravel()) if control else y.ravel()
                scores = _scores(x.reshape(-1, x.shape[2]), train_y, x_test.reshape(-1, x.shape[2]), len(classes))
                scores = np.where(shown[:, None], scores.reshape(*y_test.shape, -1), -np.inf)
                found[control, p, i] = np.where(known, (scores.argmax(axis=2) == y_test).mean(axis=1), np.nan)
    return Probe(PROBED, layers, found[0], found[1])


@torch.no_grad()
def _states(
    model: LensModel, batch: PromptBatch, layers: tuple[int, ...]
) -> Float[np.ndarray, "prompt layer place d_model"]:
    """The residual states at the answer position (place 0) and the label positions."""
    places: list[Place] = [*(("resid_pre", layer) for layer in layers[:-1]), final_state(model)]
    parts = []
    for chunk in batch.chunks():
        capture = Capture(places, torch.cat([chunk.last[:, None], chunk.label_positions], 1))
        answer_logits(model, chunk, capture)
        parts.append(torch.stack([capture.at(*place) for place in places], 1).cpu())
    return torch.cat(parts).numpy()


def _targets(batch: PromptBatch, classes: tuple[str, ...]) -> dict[str, Int[np.ndarray, "prompt sample"]]:
    """The class of each sample of each probe; -1 for one that the training prompts do not have."""
    number = {name: i for i, name in enumerate(classes)}
    demos = np.array([[number.get(demo.category, -1) for demo in prompt.demos] for prompt in batch.prompts])
    query = np.array([[number.get(prompt.category, -1)] for prompt in batch.prompts])
    return dict(zip(PROBED, (demos, query, demos[:, -1:], demos[:, :1]), strict=True))


def _samples(
    states: Float[np.ndarray, "prompt place d_model"], name: str
) -> Float[np.ndarray, "prompt sample d_model"]:
    return states[:, 1:] if name == PROBED[0] else states[:, :1]


def _scores(
    x: Float[np.ndarray, "sample d_model"],
    y: Int[np.ndarray, " sample"],
    x_test: Float[np.ndarray, "test d_model"],
    n_classes: int,
) -> Float[np.ndarray, "test class"]:
    """How strongly a probe trained on `x` and `y` speaks for each class; minus infinity for one not trained on."""
    from sklearn.linear_model import RidgeClassifierCV

    scores, trained = np.full((len(x_test), n_classes), -np.inf), np.unique(y)
    if len(trained) < 2:
        scores[:, trained] = 0.0
        return scores
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    probe = RidgeClassifierCV(alphas=np.logspace(0, 5, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ill-conditioned penalties lose the leave-one-out choice
        probe.fit((x - mean) / spread, y)
    decided = probe.decision_function((x_test - mean) / spread)
    scores[:, trained] = decided if decided.ndim == 2 else np.stack([-decided, decided], axis=1)
    return scores
