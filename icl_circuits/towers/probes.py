"""Linear probes: in which layer a text's class can be read off the residual state at its label and at the end.

Probes are trained on other prompts than they are tested on (arXiv 2402.02872 says that features flow in shallow
layers).
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import Unfit
from icl_circuits.models import LensModel, Place
from icl_circuits.patching import run_hooked
from icl_circuits.progress import tracked
from icl_circuits.prompts import PromptBatch, require_demonstrations
from icl_circuits.residual import Capture, final_state
from icl_circuits.stats import bootstrap_mean, generator, mean_of_finite
from icl_circuits.towers.flow import spread_layers

PROBED = ("text at its label", "query at last", "nearest at last", "farthest at last")
"""The class of each demonstration's text, read at its label position; the classes of the query, of the last and of the
first demonstration, read at the last position."""

TRAINED_ON = 512
"""How many prompts probes are trained on, at most: their states are held together. Those tested on are not."""


@dataclass(frozen=True, repr=False)
class Probe(Displayed):
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

    @property
    def headline(self) -> str:
        """Its main number."""
        accuracy = mean_of_finite(self.right.transpose(2, 0, 1))
        return highest("accuracy", accuracy, lambda i, j: f"{self.probed[i]}, layer {self.layers[j]}")

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
        train: prompts to train on; the first 512 of more.
        test: prompts of other texts.
        layers: whose entering states to probe; default about nine, evenly spread. The final state is added.
        seed: of the shuffled control.

    Raises:
        InputError: a layer that does not exist.
        Unfit: prompts without demonstrations, or fewer than two classes.
    """
    for part in (train, test):
        require_demonstrations(part, "to probe for")
    classes = tuple(sorted({demo.category for prompt in train.prompts for demo in prompt.demos}))
    if len(classes) < 2:
        raise Unfit("the training prompts hold one class only, so there is nothing to tell apart: add classes")
    layers = (*spread_layers(model, layers), model.cfg.n_layers)
    train = train.first(TRAINED_ON)
    y = _targets(train, classes)
    rng = generator(seed)
    states = _together(_states(model, train, layers), len(train))
    trained: list[_Trained] = []
    for i in tracked(range(len(layers)), "probing"):
        for name in PROBED:
            x = _samples(states[:, i], name)
            for control in range(2):
                of = rng.permutation(y[name].ravel()) if control else y[name].ravel()
                trained.append(_trained(x.reshape(-1, x.shape[2]), of, len(classes)))
    chunks = list(test.chunks())
    parts = [
        _shares_right(next(_states(model, chunk, layers)), _targets(chunk, classes), trained, len(classes))
        for chunk in tracked(chunks, "probing other prompts")
    ]
    found = np.concatenate(parts, axis=-1).reshape(len(layers), len(PROBED), 2, len(test))
    right, shuffled = np.moveaxis(found, (2, 1), (0, 1))
    return Probe(PROBED, layers, right, shuffled)


@torch.no_grad()
def _states(
    model: LensModel, batch: PromptBatch, layers: tuple[int, ...]
) -> Iterator[Float[np.ndarray, "prompt layer place d_model"]]:
    """The residual states at the answer position (place 0) and the label positions, some prompts at a time."""
    places: list[Place] = [*(("resid_pre", layer) for layer in layers[:-1]), final_state(model)]
    for chunk in batch.chunks():
        capture = Capture(places, torch.cat([chunk.last[:, None], chunk.label_positions], 1))
        run_hooked(model, chunk, capture)
        yield torch.stack([capture.at(*place) for place in places], 1).cpu().numpy()


def _together(
    parts: Iterator[Float[np.ndarray, "part layer place d_model"]], n: int
) -> Float[np.ndarray, "prompt layer place d_model"]:
    """The parts of `n` prompts one behind another, without holding them twice."""
    start, found = 0, np.empty(0)
    for part in parts:
        found = found if start else np.empty((n, *part.shape[1:]), part.dtype)
        found[start : start + len(part)] = part
        start += len(part)
    return found


def _shares_right(
    states: Float[np.ndarray, "prompt layer place d_model"],
    targets: Mapping[str, Int[np.ndarray, "prompt sample"]],
    trained: Sequence["_Trained"],
    n_classes: int,
) -> Float[np.ndarray, "probe prompt"]:
    """The share of each prompt's samples that each trained probe gets right, in the order of training."""
    shown = np.zeros((len(states), n_classes), bool)
    np.put_along_axis(shown, np.maximum(targets[PROBED[0]], 0), True, axis=1)
    known = np.logical_and.reduce([(target >= 0).all(axis=1) for target in targets.values()])
    places = [(i, name) for i in range(states.shape[1]) for name in PROBED for _ in range(2)]
    found = []
    for (i, name), probe in zip(places, trained, strict=True):
        x = _samples(states[:, i], name)
        scores = probe(x.reshape(-1, x.shape[2])).reshape(*x.shape[:2], n_classes)
        right = np.where(shown[:, None], scores, -np.inf).argmax(axis=2) == targets[name]
        found.append(np.where(known, right.mean(axis=1), np.nan))
    return np.stack(found)


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


_Trained = Callable[[Float[np.ndarray, "test d_model"]], Float[np.ndarray, "test class"]]
"""Says how strongly a probe speaks for each class; minus infinity for one that it was not trained on."""


def _trained(x: Float[np.ndarray, "sample d_model"], y: Int[np.ndarray, " sample"], n_classes: int) -> _Trained:
    """A probe trained on `x` and `y`."""
    from sklearn.linear_model import RidgeClassifierCV

    known = np.unique(y)
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    probe = RidgeClassifierCV(alphas=np.logspace(0, 5, 6))
    if len(known) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ill-conditioned penalties lose the leave-one-out choice
            probe.fit((x - mean) / spread, y)

    def scores(x_test: Float[np.ndarray, "test d_model"]) -> Float[np.ndarray, "test class"]:
        found = np.full((len(x_test), n_classes), -np.inf)
        if len(known) < 2:
            found[:, known] = 0.0
            return found
        decided = probe.decision_function((x_test - mean) / spread)
        found[:, known] = decided if decided.ndim == 2 else np.stack([-decided, decided], axis=1)
        return found

    return scores
