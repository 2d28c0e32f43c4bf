"""The page of facts shows what writes an answer, whatever its tokens, the model's size and the page's width."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import open_page

from icl_circuits.errors import InputError
from icl_circuits.viz import FactView, ShownFact, ShownWriter

HOSTILE = (
    "</script><b>bold</b>", "<!--", "<script>bad=1</script>", "<img src=x onerror=bad=1>", "\"'`", "\\", "\u2028\u2029",
    "\x00\x01", "שלום", "\u202eturned", "🙂", "&amp;", "${x}", "\n", "", " foo", "\t", "\xa0", "=" * 80, "\ud800",
    "\ufffd",
)  # fmt: skip


def planted_fact(
    tokens: tuple[str, ...] = ("The", " capital", " of", " France", " is"),
    answer: str = "Paris",
    n_layers: int = 6,
    n_heads: int = 4,
    said: tuple[str, ...] = (" Paris", " France"),
) -> ShownFact:
    """Every kind of writer in the last layer, and what the last head attends to and moves from each position."""
    rng = np.random.default_rng(len(tokens))
    last, n, head = n_layers - 1, len(tokens), f"L{n_layers - 1}H{n_heads - 1}"
    heads = rng.normal(size=(n_layers, n_heads))
    weight = np.arange(1.0, n + 1)
    moved = tuple(float(x) for x in np.where(np.arange(n) % 2, -1.0, 1.0) * weight / n)
    activated = ((head, 0.5), ("MLP2", -0.25))
    writers = [
        ShownWriter(f"attn{last}", "attn", last, 1.5, said, HOSTILE[:2]),
        ShownWriter(f"MLP{last}", "mlp", last, -0.5, said[::-1], said),
        ShownWriter(head, "head", last, float(heads[-1, -1]), said, said, None, tuple(weight / weight.sum()), moved),
        ShownWriter(f"{head}D127@{n - 1}", "attention", last, 0.1234567, said, said, -3.0, position=n - 1),
        ShownWriter("L0N28671", "query", 0, 123456.0, said, said, -1e6, position=0, through=head),
    ]
    writers += [
        ShownWriter(f"L{last}N{i}", "ffn", last, 0.5 - i / 20, (f" word{i}", *said), (), 2.5, activated_by=activated)
        for i in range(12)
    ]
    attn, mlp, log_prob = rng.normal(size=n_layers), rng.normal(size=n_layers), -np.arange(n_layers + 1.0)[::-1]
    predicted = tuple((text, 0.4 / (i + 1)) for i, text in enumerate((*said, *"abcde")[:5]))
    return ShownFact(tokens, answer, "capital", 0.4, 1, predicted, attn, mlp, log_prob, heads, tuple(writers))


HELPERS = """
window.addEventListener("error", (event) => { window.failed = event.message; });
const all = (css) => [...document.querySelectorAll(css)], text = (css) => document.querySelector(css).innerText;
const click = (element) => element.dispatchEvent(new MouseEvent("click", {bubbles: true}));
const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const type = (words) => { $("filter").value = words; $("filter").dispatchEvent(new Event("input")); };
const names = (css) => all(css + " > .name:first-child").map((name) => name.innerText);
const chips = (css) => all(css + " .tok").map((chip) => chip.firstChild ? chip.firstChild.data : "");
"""


def driven(chromium: str, view: FactView, folder: Path, script: str, *, width: int = 1400) -> Any:
    """What `script` returns on the page, which says nothing to the console and asks for nothing."""
    page = folder / "driven.html"
    report = (
        f"<script>{HELPERS} const found = (() => {{ {script} }})(); const out = document.createElement('pre');"
        "out.id = 'out'; const asked = performance.getEntriesByType('resource').length;"
        "out.textContent = JSON.stringify({found, asked, bad: typeof bad}); document.body.append(out);</script></body>"
    )
    page.write_text(view.to_html().replace("</body>", report), encoding="utf-8")
    opened = open_page(chromium, page, width=width)
    assert opened.console == []
    said = re.search(r'<pre id="out">(.*?)</pre>', opened.dom, re.DOTALL)
    assert said is not None
    answer = json.loads(html.unescape(said.group(1)))
    assert (answer["asked"], answer["bad"]) == (0, "undefined")
    return answer["found"]


def test_a_reader_finds_what_writes_the_answer(chromium: str, tmp_path: Path) -> None:
    facts = (planted_fact(), planted_fact(("Two", " plus", " two", " is"), "four"))
    script = """
    const seen = {first: chips("#prompt"), drawn: all("#layers rect.attn, #layers rect.mlp").length};
    click(all(".row").find((row) => row.innerText.startsWith("L5H3")));
    seen.head = all("#panel h3").map((title) => title.innerText);
    seen.weights = all("#panel .weight small").map((note) => note.innerText);
    seen.moved = all("#panel .more small, #panel .less small").map((note) => note.innerText);
    seen.ring = all("svg .ring.open").length;
    click(all(".row").find((row) => row.innerText.startsWith("L5N0")));
    seen.activated = all("#panel .parts > *").map((part) => part.innerText);
    click(document.querySelector("#panel .parts button"));
    seen.opened = text("#panel h2");
    click(all("#facts button")[1]);
    seen.second = chips("#prompt");
    seen.stays = text("#panel h2");
    type("word1");
    seen.filtered = names(".row");
    seen.matched = all(".row .match").map((chip) => chip.innerText);
    type("L0N28");
    seen.named = names(".row");
    type("");
    seen.cut = all('[data-group="ffn"] .row').length;
    click(document.querySelector('[data-group="ffn"] .all'));
    seen.whole = all(".row").length;
    click(document.querySelector('#layers [aria-label^="attn5"]'));
    seen.bar = text("#panel h2");
    seen.follows = names(".row.open");
    return seen;
    """
    seen = driven(chromium, FactView("t", "s", facts), tmp_path, script)
    assert seen["first"] == ["The", " capital", " of", " France", " is", "Paris"]
    assert seen["second"] == ["Two", " plus", " two", " is", "four"]
    assert seen["drawn"] == 12
    assert "Attention from the last position" in seen["head"]
    assert seen["weights"] == ["0.07", "0.13", "0.20", "0.27", "0.33"]
    assert seen["moved"] == ["+0.200", "\u22120.400", "+0.600", "\u22120.800", "+1.00"]
    assert seen["activated"] == ["L5H3", "", "+0.500", "MLP2", "", "\u22120.250"]
    assert seen["opened"] == "L5H3"
    assert (seen["ring"], seen["stays"]) == (1, "L5H3")  # a writer of both facts stays open
    assert seen["filtered"] == ["L5N1", "L5N10", "L5N11"]
    assert seen["matched"] == [" word1", " word10", " word11"]
    assert seen["named"] == ["L0N28671@0"]
    assert (seen["cut"], seen["whole"]) == (8, 12)
    assert (seen["bar"], seen["follows"]) == ("attn5", ["attn5"])


def test_the_keyboard_reaches_everything(chromium: str, tmp_path: Path) -> None:
    script = """
    const seen = {stops: all('.rove').map((box) => box.querySelectorAll('[tabindex="0"]').length)};
    document.querySelector('[data-group="layers"] .row').focus();
    press("ArrowDown"); press("Enter");
    seen.row = [text("#panel h2"), document.activeElement.querySelector(".name").innerText];
    press("Escape");
    seen.closed = $("panel").className;
    document.querySelector("#heads .ring").focus();
    seen.said = $("said-heads").textContent;
    press("Enter");
    seen.cell = text("#panel h2");
    document.querySelector('#panel [data-w]').focus();
    press("Enter");
    seen.link = text("#panel h2");
    click(all(".row").find((row) => row.innerText.startsWith("L0N28671")));
    seen.source = all("#prompt .source").map((chip) => chip.title);
    return seen;
    """
    seen = driven(chromium, FactView("t", "s", (planted_fact(),)), tmp_path, script)
    assert set(seen["stops"]) == {1}
    assert seen["row"] == ["MLP5", "MLP5"]
    assert seen["closed"] == "empty"
    assert re.fullmatch(r"L5H3: [+\u2212]\d\.\d+ nats\.", seen["said"])
    assert (seen["cell"], seen["link"]) == ("L5H3", "attn5")
    assert seen["source"] == ["The"]


def test_hostile_tokens_are_text(chromium: str, tmp_path: Path) -> None:
    fact = planted_fact(HOSTILE, HOSTILE[0], said=HOSTILE)
    named = replace(fact.writers[0], name=HOSTILE[2])
    fact = replace(fact, type=HOSTILE[3], writers=(named, *fact.writers))
    script = """
    for (const i of all(".row").map((row) => row.dataset.w)) click(document.querySelector(`.row[data-w="${i}"]`));
    click(document.querySelector(".row"));
    const markup = all("b, img, body script").map((element) => element.tagName);
    return {prompt: chips("#prompt"), raised: chips("#panel .tokens"), markup, name: text("#panel h2")};
    """
    seen = driven(chromium, FactView(HOSTILE[0], HOSTILE[2] + "\ud800", (fact, fact)), tmp_path, script)
    shown = seen["prompt"][:-1]
    assert shown[:6] == list(HOSTILE[:6])
    assert shown[HOSTILE.index("\n")] == "\u21b5"
    assert shown[HOSTILE.index("")] == "\u2205"
    assert shown[HOSTILE.index("\t")] == "\u21e5"
    assert shown[HOSTILE.index("\xa0")] == "\u237d"
    assert shown[HOSTILE.index(" foo")] == " foo"
    assert shown[HOSTILE.index("\ud800")] == "\ufffd"
    assert all(text.strip() for text in shown)
    assert seen["raised"][: len(HOSTILE)] == shown
    assert seen["markup"] == ["SCRIPT", "SCRIPT"]  # the page's own, and this test's
    assert seen["name"] == HOSTILE[2]


FITS = """
click(document.querySelector('[data-group="heads"] .row'));
const width = document.documentElement.clientWidth, bad = [];
if (document.documentElement.scrollWidth > width) bad.push("the page scrolls to the right");
for (const element of all("body *")) {
  const box = element.getBoundingClientRect();
  if (element.closest(".few") || !box.width) continue;
  if (box.right > width + 0.5 || box.left < -0.5) bad.push(`outside: ${element.outerHTML.slice(0, 90)}`);
}
const meet = (p, q) => p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 3 && q.top < p.bottom - 3;
for (const svg of all("svg")) {
  const words = [...svg.querySelectorAll("text")].map((word) => [word.textContent, word.getBoundingClientRect()]);
  words.forEach(([a, p], i) => words.slice(i + 1).forEach(([b, q]) => {
    if (meet(p, q)) bad.push(`meet: ${a}, ${b}`);
  }));
}
for (const cell of all(".row .name, .row .number, .heading span, #next .number"))
  if (cell.clientWidth && cell.scrollWidth > cell.clientWidth + 1) bad.push(`cut: ${cell.textContent}`);
return {bad: bad.slice(0, 8), options: all("#fact option").length, buttons: all("#facts button").length};
"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [700, 960, 1400])
@pytest.mark.parametrize("size", ["small", "large"])
def test_nothing_is_cut_off_or_overlaps(chromium: str, tmp_path: Path, width: int, size: str) -> None:
    if size == "small":
        facts = (planted_fact(n_layers=3, n_heads=4),)
    else:
        tokens = (HOSTILE * 15)[:300]
        facts = (planted_fact(tokens, HOSTILE[0], n_layers=96, n_heads=128, said=HOSTILE),) * 40
    seen = driven(chromium, FactView("t" * 200, "s" * 200, facts), tmp_path, FITS, width=width)
    assert seen["bad"] == []
    assert (seen["options"], seen["buttons"]) == ((0, 0) if size == "small" else (40, 0))


def test_what_is_not_finite_is_said(chromium: str, tmp_path: Path) -> None:
    fact = planted_fact()
    blank = np.full_like(fact.heads, np.nan)
    nothing = replace(
        fact, prob=np.nan, attn=blank[:, 0], mlp=fact.mlp * 0, log_prob=fact.log_prob * np.nan, heads=blank
    )
    first = replace(fact.writers[0], score=float("nan"))
    nothing = replace(nothing, writers=(first, replace(fact.writers[2], attention=(np.nan,) * 5)))
    script = 'all(".row").forEach((row) => click(row)); return [text("#answer"), text(".row .number")];'
    seen = driven(chromium, FactView("t", "s", (nothing, replace(fact, writers=()))), tmp_path, script)
    assert "not finite" in seen[0]
    assert seen[1] == "not finite"


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        FactView("t", "s", (planted_fact(),)).save(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    page = (tmp_path / "first").read_text(encoding="utf-8")
    assert '"score": 0.1235' in page  # four digits
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg)", page)


def test_in_a_notebook(chromium: str, tmp_path: Path) -> None:
    view = FactView(HOSTILE[0], "s", (planted_fact(HOSTILE),))
    assert repr(view) == "FactView of 1 facts"
    frame = view._repr_html_()
    assert frame.startswith('<iframe sandbox="allow-scripts"')
    assert "<script" not in frame  # all of the page is inside an attribute
    (tmp_path / "notebook.html").write_text(f"<html><body>{frame}</body></html>", encoding="utf-8")
    assert open_page(chromium, tmp_path / "notebook.html").console == []


def test_facts_that_do_not_fit_are_refused() -> None:
    fact = planted_fact()
    with pytest.raises(InputError, match="one or more"):
        FactView("t", "s", ())
    with pytest.raises(InputError, match="6 states"):
        FactView("t", "s", (replace(fact, log_prob=fact.log_prob[:-1]),))
    with pytest.raises(InputError, match=r"L5H3D127@4 of fact 0 \(Paris\) does not fit its prompt of 4 tokens"):
        FactView("t", "s", (replace(fact, tokens=fact.tokens[:4], writers=fact.writers[3:]),))
    with pytest.raises(InputError, match="layer 9 of 6"):
        FactView("t", "s", (replace(fact, writers=(replace(fact.writers[0], layer=9),)),))
