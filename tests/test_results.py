"""Results come back from a file as they were; figures drawn from them show their numbers, and all of their words."""

import dataclasses
import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from icl_circuits import InputError
from icl_circuits.biases import MajorityBias, RecencyBias, arrangements
from icl_circuits.biases.majority import imbalances
from icl_circuits.circuits import Circuit, CircuitTest
from icl_circuits.heads import (
    Answers,
    Group,
    GroupEffects,
    HeadEffects,
    InContextHead,
    InContextHeads,
    LogProbIncrease,
    PositionIncrease,
)
from icl_circuits.jobs import Job, Settings
from icl_circuits.patching import Cell, Sweep
from icl_circuits.report import Results, from_plain, write_figures, write_results
from icl_circuits.report.results import STRUCTURE
from icl_circuits.residual import Edge, Head, Label, Logits, Text
from icl_circuits.studies import STUDIES, figures_of, kinds_of, load_results
from icl_circuits.studies.study import IN_CONTEXT_PROMPTS
from icl_circuits.towers import Flow, LabelFeatures, MetricLearning, Probe, Reversal
from icl_circuits.viz import style, sweep_map
from icl_circuits.viz.look import new_figure, svg

IN_CONTEXT_STUDIES = [study for study in STUDIES if study.begins == IN_CONTEXT_PROMPTS]
FIGURES, KINDS = figures_of(IN_CONTEXT_STUDIES), kinds_of()
HOSTILE = ("</script><b>x", "$\\frac", "_hidden")
SHAPES = {
    "usual": {"labels": ("foo", "bar"), "n_heads": 12, "n_layers": 30},
    "long words": {"labels": ("positive", "negative"), "n_heads": 1, "n_layers": 1, "coefficient": 0.01},
    "many": {"labels": ("entity", "description", "abbreviation"), "n_heads": 40, "n_layers": 80, "shots": 4},
    "hostile": {"labels": HOSTILE, "n_heads": 3, "n_layers": 4, "coefficient": 0.0},
}


def made(
    labels: tuple[str, ...], n_heads: int, n_layers: int, shots: int = 2, coefficient: float = 0.3, n_prompts: int = 6
) -> dict[str, Any]:
    """Random values of every kind that a figure is drawn of."""
    rng = np.random.default_rng(0)
    in_layer = max(4, -(-n_heads // n_layers))
    every = [Head(layer, head) for layer in range(n_layers) for head in range(in_layer)]
    heads = tuple(every[i] for i in rng.permutation(len(every))[:n_heads])
    n_demos, n_pos = shots * len(labels), 3 * shots * len(labels) + 2
    gold = np.arange(n_prompts) % len(labels)
    where = np.tile(np.arange(2, 3 * n_demos, 3), (n_prompts, 1))
    demo_labels = np.tile(np.repeat(np.arange(len(labels)), shots), (n_prompts, 1))

    def answers(*axes: int) -> Answers:
        right = rng.random((*axes, n_prompts)) < 0.7
        return Answers(right, right, rng.normal(size=right.shape), rng.normal(size=right.shape))

    def features() -> LabelFeatures:
        attention = rng.random((n_prompts, n_heads, n_pos))
        logits = rng.normal(size=(n_prompts, n_heads, n_pos, len(labels)))
        return LabelFeatures(heads, labels, attention, logits, where, demo_labels, gold)

    def auc() -> MetricLearning:
        one = rng.random((n_prompts, n_heads))
        return MetricLearning(heads, one, one[::-1].copy(), rng.random((20, n_heads)))

    def majority(strengths: tuple[float, ...]) -> MajorityBias:
        keeps = imbalances(shots, len(labels))
        return MajorityBias(keeps, strengths, answers(len(keeps), len(strengths)), gold, labels)

    orders = arrangements(n_demos, shots, 4, seed=0)
    strengths = tuple(dict.fromkeys((0.0, 0.03, coefficient)))
    chosen = tuple(
        InContextHead(*head, labels[i % len(labels)], 1.0, 0.5, np.nan, np.nan, np.nan, np.nan, np.nan)
        for i, head in enumerate(heads)
    )
    always = Answers(*(np.ones(n_prompts, kind) for kind in (bool, bool, float, float)))
    twins = features(), features()
    values: dict[str, Any] = {
        "selected": InContextHeads(chosen, labels),
        "increase": LogProbIncrease(
            rng.normal(size=(n_prompts, n_layers)),
            rng.normal(size=(n_prompts, n_layers)),
            rng.normal(size=(n_prompts, n_layers, in_layer)),
        ),
        "effects": HeadEffects(heads, answers(), answers(n_heads)),
        "groups": GroupEffects(
            Group("base", None, ((),), answers()),
            Group("all", None, (heads,), answers()),
            tuple(Group("label", label, (heads[:1],), answers()) for label in labels),
            Group("random", None, (heads,) * 5, answers(5)),
            tuple(Group("random", label, (heads[:1],) * 5, answers(5)) for label in labels),
            gold,
            labels,
        ),
        "positions": PositionIncrease(
            heads, rng.normal(size=(n_prompts, n_heads, n_pos)), rng.random((n_prompts, n_heads, n_pos))
        ),
        "evaluation.gold": gold,
        "evaluation.label_positions": where,
        "evaluation.demo_labels": demo_labels,
        "features": features(),
        "auc": auc(),
        "auc_random": auc(),
        "probe": Probe(
            ("text at its label", "query at last"), tuple(range(n_layers + 1)),
            rng.random((2, n_layers + 1, n_prompts)), rng.random((2, n_layers + 1, n_prompts)),
        ),
        "flow": Flow(("text -> label", "query -> last"), (0, n_layers), answers(), answers(2, 2)),
        "majority": dataclasses.replace(majority(strengths), controls=(majority(strengths),)),
        "majority_sweep": majority(strengths),
        "recency": RecencyBias(
            orders, (0.0, 1.0), answers(4, 2), heads, rng.random((4, 2, n_prompts, n_heads, n_demos))
        ),
        "recency_sweep": RecencyBias(orders, (0.0,), answers(4, 1), heads, np.full((4, 1, n_prompts, 0, n_demos), 0.5)),
        "chosen": np.array([coefficient, 0.0]),
        "circuit_test": CircuitTest(
            heads, (1, 5, 9), "logit_diff", rng.normal(size=n_prompts), np.zeros(n_prompts),
            rng.normal(size=(3, 3, n_prompts)),
        ),
        "circuit": Circuit(
            (Edge(Text(0), Label(0)), Edge(Head(0, 1), Logits())),
            rng.normal(size=(2, n_prompts)), np.full(n_prompts, np.nan), "log_prob", {"n_layers": 2, "wide": False},
            {"name": "x", "nothing": None},
        ),
    }  # fmt: skip
    if len(labels) == 2:
        values["reversal"] = Reversal(*twins, (always, always))
    return values


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal in every array, its type, and everything else."""
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right, equal_nan=left.dtype.kind == "f")
    if dataclasses.is_dataclass(left):
        names = [field.name for field in dataclasses.fields(left)]
        return type(left) is type(right) and all(same(getattr(left, n), getattr(right, n)) for n in names)
    if isinstance(left, tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return left == right or (np.isnan(left) and np.isnan(right))


@pytest.mark.parametrize("shape", SHAPES)
def test_results_come_back_as_they_were(tmp_path: Path, shape: str) -> None:
    values = made(**SHAPES[shape])
    about = {"described": "A run.", "settings": {"labels": list(SHAPES[shape]["labels"])}, "provenance": {"x": None}}
    for name in ("one", "two"):
        write_results(Results(about, values), tmp_path / name, KINDS)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    again = load_results(tmp_path / "one")
    assert again.about == about
    assert list(again.values) == list(values)
    for name, value in values.items():
        assert same(value, again.values[name]), name
    with safe_open(tmp_path / "one", framework="numpy") as file:
        assert "groups.random.answers.top1" in file.keys()  # noqa: SIM118


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    write_results(Results({}, {"increase": made(**SHAPES["hostile"])["increase"]}), tmp_path / "good", KINDS)
    with safe_open(tmp_path / "good", framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        structure = file.metadata()[STRUCTURE]
    for old, new in (
        ('"mlp"', '"mpl"'),  # a field that is no more
        ('{"$array": "increase.mlp"}', "1"),  # no array
        ("LogProbIncrease", "NoSuchKind"),
        ('"values"', '"value"'),
        (structure, "[]"),
        (structure, "{"),
    ):
        assert old in structure
        save_file(arrays, tmp_path / "bad", metadata={STRUCTURE: structure.replace(old, new)})
        with pytest.raises(InputError, match="this version of icl_circuits"):
            load_results(tmp_path / "bad")


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_every_word_of_a_figure_is_inside_it(shape: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    values = made(**SHAPES[shape])
    for name, figure in FIGURES.items():
        if not all(need in values for need in figure.needs):
            continue
        drawn = figure.draw(values)
        svg(drawn)
        width, height = drawn.get_size_inches() * 72
        assert width in (pytest.approx(3.3 * 72), pytest.approx(6.8 * 72))
        assert height < 10 * 72
        with style():
            (canvas := FigureCanvasAgg(drawn)).draw()
            renderer = canvas.get_renderer()
            boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in _texts(drawn)]
        for text, box in boxes:
            inside = min(box.x0, box.y0) >= -1 and box.x1 <= drawn.bbox.x1 + 1 and box.y1 <= drawn.bbox.y1 + 1
            assert inside, (name, text, box, drawn.bbox)
        for axes in drawn.axes:
            for labels in (axes.get_xticklabels(), axes.get_yticklabels()) if axes.axison else ():
                shown = [b for t in labels if t.get_text() and (b := t.get_window_extent(renderer)) and t.get_visible()]
                apart = sorted(shown, key=lambda b: (round(b.y0 / 9), b.x0))
                rotated = any(t.get_rotation() for t in labels)
                for a, b in itertools.pairwise(apart):
                    assert rotated or not a.overlaps(b), (name, a, b)


@pytest.mark.slow
def test_legends_leave_four_fifths_of_a_figure() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    values = made(**SHAPES["usual"])
    for name, figure in FIGURES.items():
        if not all(need in values for need in figure.needs):
            continue
        drawn = figure.draw(values)
        svg(drawn)
        with style():
            (canvas := FigureCanvasAgg(drawn)).draw()
            legends = [*drawn.legends, *(axes.get_legend() for axes in drawn.axes if axes.get_legend())]
            heights = [legend.get_window_extent(canvas.get_renderer()).height for legend in legends]
        assert sum(heights) <= drawn.bbox.height / 5, (name, heights, drawn.bbox.height)


def _texts(figure: Any) -> list[Any]:
    """The words that are drawn, but for tick labels, some of which matplotlib keeps beyond an axis's ends."""
    from matplotlib.text import Text

    ticks = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
    }
    return [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible() and id(t) not in ticks]


def test_figures_show_the_numbers_of_their_results() -> None:
    values = made(**SHAPES["usual"])

    def panels(name: str) -> Any:
        return FIGURES[name].draw(values).axes

    features = values["features"]
    attention, weighted, raw = ([bar.get_height() for bar in axes.patches] for axes in panels("label_features"))
    for shown, values_of in ((attention, features.attention), (weighted, features.weighted_logit_minus())):
        expected = np.concatenate([features.at_label(values_of, label).mean(axis=0) for label in (0, 1)])
        np.testing.assert_allclose(shown, expected)
    np.testing.assert_allclose(
        raw, np.concatenate([features.at_label(features.logit_minus(), label).mean(axis=0) for label in (0, 1)])
    )
    (auc,) = panels("class_auc")
    np.testing.assert_allclose(auc.lines[0].get_ydata(), values["auc"].auc.mean(axis=0))
    above, below = panels("flow")
    np.testing.assert_allclose(above.lines[0].get_ydata(), values["flow"].cut.logit_diff[0].mean(axis=1))
    np.testing.assert_allclose(below.lines[0].get_ydata(), values["probe"].right[0].mean(axis=1))
    above, below = panels("majority")
    foo, keeps = values["majority"].gold == 0, values["majority"].keeps
    order = sorted(range(len(keeps)), key=lambda place: keeps[place][0] / sum(keeps[place]))
    assert [text.get_text() for text in above.get_xticklabels()] == ["1:2", "2:2", "2:1"]
    for line, strength in ((above.containers[0].lines[0], 0), (above.containers[1].lines[0], 2)):
        assert line.get_linestyle() == "None"  # conditions are not joined
        shown = values["majority"].answers.top1[:, strength, foo].mean(axis=1)
        np.testing.assert_allclose(line.get_ydata(), shown[order])
    sweep = values["majority_sweep"]
    np.testing.assert_allclose(below.lines[0].get_ydata(), [sweep.fluctuation(i)[0] for i in range(3)])
    above, below = panels("recency")
    heights = [bar.get_height() for bar in above.patches]
    np.testing.assert_allclose(heights, values["recency"].answers.top1.mean(axis=-1).T.flatten())
    reversal = values["reversal"]
    change = reversal.relative_change("attention", 3, 0).mean
    assert panels("reversal")[0].patches[3].get_height() == pytest.approx(100 * np.clip(change, -1.5, 1.5))
    (curves,) = panels("circuit_curves")
    np.testing.assert_allclose(curves.lines[1].get_ydata(), values["circuit_test"].values[1].mean(axis=1))


@pytest.mark.slow
def test_captions_say_what_was_drawn(tmp_path: Path) -> None:
    for shape, words in (
        ("usual", {"majority": "coefficient 0.3", "reversal": "6 of 6", "recency": "full strength"}),
        ("hostile", {"majority": "none was chosen"}),
    ):
        values = made(**SHAPES[shape])
        (folder := tmp_path / shape).mkdir()
        names = write_figures(Results({"described": "Model: m."}, values), folder, FIGURES)
        assert set(names) == set(FIGURES) - (set() if "reversal" in values else {"reversal"})
        for name in names:
            caption = (folder / f"{name}.txt").read_text()
            assert caption.endswith(" Model: m.\n")
            assert words.get(name, "") in caption
    without = {key: value for key, value in made(**SHAPES["usual"]).items() if key != "flow"}
    caption: Any = FIGURES["flow"].caption
    assert "Curves above" in caption(made(**SHAPES["usual"]))
    assert "Curves above" not in caption(without)


def test_jobs_of_earlier_versions_are_read() -> None:
    """Settings once had a metric, which only circuits take."""
    plain = dataclasses.asdict(Job())
    plain["settings"] |= {"metric": "log_prob", "shots": 3}
    assert from_plain(plain, Job) == Job(settings=Settings(shots=3))


CAPTIONS = {name: figure.caption for name, figure in figures_of(STUDIES).items()}


def sentences(name: str, shape: str) -> list[str]:
    """Those of a caption, in the words of planted results where it depends on them."""
    caption = CAPTIONS[name]
    said = caption if isinstance(caption, str) else caption(made(**SHAPES[shape]))
    return re.split(r"(?<=[.?!])\s+", said)


@pytest.mark.parametrize("name", CAPTIONS)
def test_captions_are_in_short_sentences(name: str) -> None:
    for shape in ("usual",) if name == "reversal" else ("usual", "hostile"):
        long = [sentence for sentence in sentences(name, shape) if len(sentence.split()) > 25]
        assert not long


def test_the_gallery_has_the_captions_first_sentences() -> None:
    gallery = (Path(__file__).parent.parent / "docs" / "gallery.md").read_text(encoding="utf-8")
    shown = re.findall(r"\n\n([^#!]*)\n\n!\[(\w+)\]\(pictures/", gallery)
    assert len(shown) > 30
    for said, name in shown:
        assert said.replace("\n", " ") == sentences(name, "usual")[0], name


def test_a_sweep_as_a_map() -> None:
    cells = tuple(Cell(layer, head, None) for layer in (0, 4) for head in range(3))
    effects = np.arange(6.0)[:, None] + np.zeros((6, 2))
    (axes, _) = sweep_map(Sweep("z", "logit_diff", cells, np.ones(2), 1 + effects, 1.0)).axes
    np.testing.assert_allclose(axes.images[0].get_array(), effects.mean(axis=1).reshape(2, 3).T)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "4"]
    assert axes.get_ylabel() == "head"


@pytest.mark.parametrize(
    ("site", "cell", "rows", "label"),
    [
        ("resid_pre", Cell(0, None, 1), None, "position"),
        ("resid_pre", Cell(0, None, None), None, "positions"),
        ("z", Cell(0, 2, 1), None, "head and position"),
        ("resid_pre", Cell(0, None, 1), "demonstration", "demonstration"),
    ],
)
def test_the_map_of_a_sweep_says_what_its_rows_are(site: Any, cell: Cell, rows: str | None, label: str) -> None:
    found = Sweep(site, "logit_diff", (cell,), np.ones(2), np.ones((1, 2)), 1.0)
    assert sweep_map(found, *([] if rows is None else [rows])).axes[0].get_ylabel() == label


def test_the_rows_of_a_map_have_names() -> None:
    cells = tuple(Cell(0, None, position) for position in range(12))
    found = Sweep("resid_pre", "logit_diff", cells, np.ones(2), np.ones((12, 2)), 1.0)
    names = [f" token{position}" for position in range(12)]
    assert [tick.get_text() for tick in sweep_map(found, names=names).axes[0].get_yticklabels()] == names
    with pytest.raises(InputError, match="2 names for 12 rows"):
        sweep_map(found, names=names[:2])


def test_settings_of_the_user_change_no_figure() -> None:
    import matplotlib

    def drawn() -> bytes:
        with style():
            figure = new_figure(1.0)
            figure.subplots().plot([0, 1], [0, 1])
        return svg(figure)

    first = drawn()
    with matplotlib.rc_context({"font.family": "serif", "axes.grid": True, "lines.linestyle": "--"}):
        assert drawn() == first
