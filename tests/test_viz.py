"""Pages open offline and show every view whatever the data holds; figures are the same bytes every time."""

import base64
import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import open_page

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
from icl_circuits.residual import Head
from icl_circuits.viz import (
    MarkedToken,
    Section,
    Table,
    accuracy_bars,
    answer_bars,
    attention_view,
    colored_tokens_view,
    head_map,
    layer_bars,
    position_bars,
    render_page,
    save,
    script_json,
    topk_tokens_view,
)

HOSTILE = [
    "</script><b>bold</b>", "<!--", "<script>alert(1)</script>", "\"'`", "\\", "\u2028\u2029", "\x00\x01", "שלום", "🙂",
    "&amp;", "${x}", "]]>", "\n", "", " foo",
]  # fmt: skip


def props_of(view: str) -> dict[str, Any]:
    """What a view is given to draw."""
    found = re.search(r'unpacked\("([^"]+)"\)', view)
    assert found is not None
    return dict(json.loads(gzip.decompress(base64.b64decode(found.group(1)))))


def answers(right: np.ndarray) -> Answers:
    return Answers(right, right, np.where(right, -0.1, -3.0), np.where(right, 1.0, -1.0))


@pytest.fixture
def results() -> tuple[LogProbIncrease, HeadEffects, InContextHeads, GroupEffects]:
    rng = np.random.default_rng(0)
    increase = LogProbIncrease(rng.normal(size=(8, 5)), rng.normal(size=(8, 5)), rng.normal(size=(8, 5, 4)))
    heads = (Head(4, 1), Head(3, 2), Head(3, 0))
    effects = HeadEffects(heads, answers(rng.random(8) < 0.9), answers(rng.random((3, 8)) < 0.5))
    chosen = (
        InContextHead(4, 1, "foo", 1.0, 0.3, 0.5, 0.4, 0.6, 0.001, 0.001),
        InContextHead(3, 0, "bar", 0.5, 0.1, 0.2, -0.1, 0.5, 0.01, 0.3),
    )
    selected = InContextHeads(chosen, ("foo", "bar"))
    groups = GroupEffects(
        base=Group("base", None, ((),), answers(rng.random(8) < 0.9)),
        all=Group("all", None, (selected.of(),), answers(rng.random(8) < 0.1)),
        by_label=(),
        random=Group("random", None, ((Head(0, 0), Head(0, 1)),) * 5, answers(rng.random((5, 8)) < 0.8)),
        random_by_label=(),
        gold=np.arange(8) % 2,
        labels=("foo", "bar"),
    )
    return increase, effects, selected, groups


@pytest.mark.slow
def test_figures_are_written_and_deterministic(results: tuple, tmp_path: Path) -> None:
    increase, effects, selected, groups = results
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        save(head_map(increase, effects, selected), tmp_path / name / "head_map")
        save(layer_bars(increase), tmp_path / name / "layer_bars")
        save(accuracy_bars(groups), tmp_path / name / "accuracy")
    files = sorted(file.name for file in (tmp_path / "first").iterdir())
    assert files == [
        f"{stem}.{kind}" for stem in ("accuracy", "head_map", "layer_bars") for kind in ("pdf", "png", "svg")
    ]
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file


def test_figures_show_their_numbers(results: tuple) -> None:
    increase, effects, selected, groups = results
    above, below, *_ = head_map(increase, effects, selected).axes
    np.testing.assert_allclose(above.images[0].get_array(), increase.head_means().T)
    shown = below.images[0].get_array()
    assert np.isnan(np.ma.filled(shown, np.nan)).sum() == 5 * 4 - 3
    np.testing.assert_allclose(shown[1, 4], effects.log_prob_drop.mean(axis=1)[0])
    assert sum(not patch.get_fill() for patch in above.patches) == 2
    (bars,) = layer_bars(increase).axes
    heights = [bar.get_height() for bar in bars.patches]
    np.testing.assert_allclose(heights, [*increase.attn.mean(axis=0), *increase.mlp.mean(axis=0)])
    (accuracy,) = accuracy_bars(groups).axes
    frame = groups.to_frame().query("gold.isna()")
    np.testing.assert_allclose(
        [bar.get_width() for bar in accuracy.patches], [*frame["top1"], *frame["between_labels"]]
    )
    (apart,) = answer_bars(groups).axes
    frame = groups.to_frame().dropna(subset="gold").sort_values("gold", ascending=False, kind="stable")  # foo, bar
    np.testing.assert_allclose([bar.get_width() for bar in apart.patches], frame["top1"])


def test_positions_are_summed_by_what_they_hold() -> None:
    values = np.arange(2 * 1 * 6.0).reshape(2, 1, 6)
    found = PositionIncrease((Head(0, 0),), values, values / 100)
    where, is_gold = np.array([[1, 3, 5], [0, 1, 2]]), np.array([[True, False, True], [False, True, False]])
    attention, increase = position_bars(found, where, is_gold).axes
    gold, others = [1 + 5, 6 + 1], [3, 6 + 0 + 6 + 2]
    np.testing.assert_allclose([bar.get_height() for bar in increase.patches], [np.mean(gold), np.mean(others)])
    np.testing.assert_allclose(
        [bar.get_height() for bar in attention.patches], [np.mean(gold) / 100, np.mean(others) / 100]
    )


@pytest.mark.slow
def test_any_label_can_be_drawn(results: tuple, tmp_path: Path) -> None:
    *_, groups = results
    for i, label in enumerate([*HOSTILE, "$x", "$\\frac$", "_hidden"]):
        figure = answer_bars(replace(groups, labels=(label, "bar")))
        assert [text.get_text() for text in figure.legends[0].get_texts()] == [f"answer {label}", "answer bar"]
        save(figure, tmp_path / str(i))
        assert (tmp_path / f"{i}.pdf").stat().st_size > 1000


def test_script_json_cannot_leave_its_script() -> None:
    for text in HOSTILE:
        dumped = script_json({"text": text})
        assert json.loads(dumped) == {"text": text}
        assert not re.search("[<>&\u2028\u2029]", dumped)


def test_hostile_strings_in_every_place(chromium: str, tmp_path: Path) -> None:
    n = len(HOSTILE)
    pattern = np.tril(np.full((2, n, n), 0.25))
    views = tuple(
        (text, attention_view(f"view-{i}", HOSTILE, pattern, [text, "L0H1"])) for i, text in enumerate(HOSTILE[:3])
    )
    values = np.arange(2.0 * n).reshape(n, 2)
    views += ((HOSTILE[0], colored_tokens_view("tokens", HOSTILE, values, HOSTILE[:2])),)
    views += ((HOSTILE[1], topk_tokens_view("top", [HOSTILE], [values[None]], HOSTILE[2:3])),)
    page = tmp_path / "page.html"
    cells = tuple((text, text) for text in HOSTILE)
    marked = tuple(MarkedToken(text, i, "label") for i, text in enumerate(HOSTILE))
    section = Section(HOSTILE[0], HOSTILE[2], Table(("a</td>", "b"), cells), views=views[:1], marked=marked)
    others = [Section(HOSTILE[1], HOSTILE[2], views=(view,), answer=HOSTILE[0]) for view in views[1:]]
    page.write_text(render_page(HOSTILE[0], HOSTILE[1], (section, *others)), encoding="utf-8")
    opened = open_page(chromium, page)
    assert opened.console == []
    assert opened.count("canvas") == 3 * 3  # two small patterns and an enlarged one in each view
    assert "<b>bold" not in re.sub(r'="[^"]*"', "", opened.dom)  # in attributes it may stand as it is
    assert opened.dom.count("&lt;b&gt;bold&lt;/b&gt;") >= 4  # the views show it
    assert opened.dom.split("</table>")[0].count("<td") == 2 * n
    assert "http://" not in page.read_text().split("<body>")[1]


def test_a_page_without_views_has_no_bundle() -> None:
    assert len(render_page("t", "s", (Section("a", "b"),))) < 10_000


def test_long_prompts_keep_the_page_small() -> None:
    names, rng = ["L0H0", "L0H1", "L0H2"], np.random.default_rng(0)
    view = attention_view("v", ["a"] * 250, np.tril(rng.random((3, 250, 250))), names)
    assert len(view) < 400_000
    assert props_of(view)["attentionHeadNames"] == names[:2]
    assert "the first 2 of 3 heads" in view
    pattern = np.full((2, 1000, 1000), 0.123, np.float32)
    view = attention_view("v", [f"t{i}" for i in range(1000)], pattern, names[:2])
    assert "the last 387 of 1000 tokens. the first 1 of 2 heads" in view
    assert (props_of(view)["tokens"][0], props_of(view)["tokens"][-1]) == ("t613", "t999")
    view = colored_tokens_view("v", ["a"] * 9000, rng.normal(size=(9000, 60)), [f"L{i}H0" for i in range(60)])
    assert "the first 16 of 60 heads" in view
    assert len(view) < 800_000
    values = [np.full((100, 34, 300), 0.123)] * 2
    assert "the first 1 of 2 prompts" in topk_tokens_view("v", [["a"] * 34] * 2, values, ["p0", "p1"], k=2)
    assert "To keep" not in attention_view("v", ["a"] * 30, np.full((3, 30, 30), 0.123), names)


def test_signed_values_share_one_scale() -> None:
    view = colored_tokens_view("v", ["a", "b"], np.array([[0.242, 0.1], [-0.007, 0.0]]), ["L0H0", "L0H1"])
    assert (props_of(view)["positiveBounds"], props_of(view)["negativeBounds"]) == ([0.242] * 2, [-0.242] * 2)


CHOOSE = """
<script>
const choice = document.querySelector(".views select");
choice.selectedIndex = 1;
choice.dispatchEvent(new Event("input"));
</script>
"""


def test_of_several_views_one_is_drawn(chromium: str, tmp_path: Path) -> None:
    values = np.array([[0.25], [0.0]])
    views = tuple(
        (name, colored_tokens_view(name, [f"token-{name}", "b"], values, ["L0H1"])) for name in ("left", "right")
    )
    made = render_page("t", "s", (Section("a", "b", views=views),))
    for drive, there, gone in (("", "token-left", "token-right"), (CHOOSE, "token-right", "token-left")):
        (page := tmp_path / "page.html").write_text(made.replace("</body>", drive + "</body>"), encoding="utf-8")
        opened = open_page(chromium, page)
        assert opened.console == []
        assert (there in opened.dom, gone in opened.dom) == (True, False)


SORT = """
<script>
const heads = [...document.querySelectorAll("th")], rows = () => [...document.querySelectorAll("tbody tr")];
const column = (i) => rows().map((row) => row.cells[i].textContent).join(" ");
heads[1].firstElementChild.click();
document.title = [column(0), heads[1].getAttribute("aria-sort")].join("; ");
heads[1].firstElementChild.click();
document.title += "; " + [column(0), heads[1].getAttribute("aria-sort")].join("; ");
heads[0].firstElementChild.click();
document.title += "; " + [column(0), heads[0].getAttribute("aria-sort"), heads[1].getAttribute("aria-sort")].join("; ");
</script>
"""


def test_tables_sort_by_their_headers(chromium: str, tmp_path: Path) -> None:
    """By the number that a cell begins with, largest first; by words otherwise; empty cells last both ways."""
    rows = (("L2H1", "+0.5 [0.1, 0.9]"), ("L10H0", ""), ("L9H3", "-1.5 [-2, -1]"), ("L1H1", "1,200"))
    page = tmp_path / "page.html"
    made = render_page("t", "f", (Section("a", "b", Table(("head", "value"), rows), answer="c"),))
    page.write_text(made.replace("</body>", SORT + "</body>"), encoding="utf-8")
    opened = open_page(chromium, page)
    assert opened.console == []
    (title,) = re.findall("<title>(.*)</title>", opened.dom)
    assert title.split("; ") == [
        "L1H1 L2H1 L9H3 L10H0", "descending", "L9H3 L2H1 L1H1 L10H0", "ascending", "L1H1 L2H1 L9H3 L10H0", "ascending",
        "",
    ]  # fmt: skip


def test_a_page_answers_first(tmp_path: Path, results: tuple) -> None:
    """The finding, a list of contents, and in every section the answer before what explains it."""
    *_, groups = results
    save(accuracy_bars(groups), tmp_path / "accuracy")
    figure = Section("One", "how it was measured", figure=tmp_path / "accuracy.svg", answer="It is <so>.")
    drawn = Section("Drawn", "", drawing="<svg xmlns='http://www.w3.org/2000/svg'/>", answer="A drawing.")
    page = render_page("T", "The finding.", (figure, Section("Two", "said")), also=("More.",), first=(drawn,))
    order = [
        "The finding.",
        "More.",
        "A drawing.",
        "<h2>One</h2>",
        "It is &lt;so&gt;.",
        "<details",
        "how it was measured",
    ]
    assert [page.index(text) for text in order] == sorted(page.index(text) for text in order)
    assert [page.count(text) for text in ('href="#s1"', 'href="#s2"', 'id="s1"', 'id="s2"')] == [1] * 4
    assert f'<a href="{tmp_path.name}/accuracy.pdf">PDF</a>' in page
    assert "prefers-color-scheme: dark" in page


def test_the_tokens_of_the_largest_values(chromium: str, tmp_path: Path) -> None:
    """Drawn from values of ours, the top and the bottom of them, and the tokens coloured."""
    values = np.array([[[0.1], [0.123456], [-0.5], [0.05]]])
    top = topk_tokens_view("top", [["a", "b", "c", "d"]], [values], ["prompt 0"], k=2)
    props = props_of(top)
    assert props["topkIdxs"] == [[[[1], [0]]]]
    assert props["topkVals"] == [[[[0.123], [0.1]]]]
    assert props["bottomkIdxs"] == [[[[3], [2]]]]
    colored = colored_tokens_view("colored", ["left", "right"], np.array([[0.25, 1.0], [0.0, -1.0]]), ["L0H1", "L0H2"])
    page = tmp_path / "page.html"
    sections = [Section("a", "b", views=((caption, view),)) for caption, view in (("c", top), ("d", colored))]
    page.write_text(render_page("t", "s", sections), encoding="utf-8")
    opened = open_page(chromium, page)
    assert opened.console == []
    drawn = re.sub(r"<script.*?</script>", "", opened.dom, flags=re.DOTALL)
    for shown in ("prompt 0", "Topk", "left", "L0H2"):
        assert shown in drawn
