"""The live circuit: what a click computes, what it says, and the page that sends the clicks, in a browser."""

import base64
import html
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import open_page
from test_circuits import HOSTILE
from torch import Tensor

from icl_circuits import InputError
from icl_circuits.circuits import Circuit, find_circuit
from icl_circuits.interventions import from_logits
from icl_circuits.models import LensModel, hook_points, load_model
from icl_circuits.prompts import PromptBatch, Rows, encode, sample_prompts
from icl_circuits.residual import Edge, Head, Last, Logits
from icl_circuits.viz import live, live_circuit
from icl_circuits.viz.circuit_svg import printable

HEAD = Head(1, 2)


def made(model: LensModel, words: Rows) -> tuple[PromptBatch, Circuit]:
    batch = encode(model, sample_prompts(words, 4, shots=2, seed=3))
    return batch, find_circuit(model, batch, [HEAD, Head(2, 1)], n_upstream=2)


def test_a_click_equals_hooks_by_hand(model: LensModel, words: Rows) -> None:
    """To 2e-4 of a logit, and 1e-5 of a probability."""
    batch, circuit = made(model, words)
    widget = live_circuit(model, batch, circuit)
    query = circuit.edges.index(Edge(Last(), HEAD, "q"))
    rows, seen = torch.arange(len(batch)), list[Tensor]()
    base = model.run_with_hooks(batch.tokens, fwd_hooks=[("blocks.1.attn.hook_q", lambda q, hook: seen.append(q))])
    mean = seen[0][rows, batch.last, HEAD.head].mean(0)

    def replace_query(q: Tensor, hook: Any) -> Tensor:
        q[rows, batch.last, HEAD.head] = mean
        return q

    cut = model.run_with_hooks(batch.tokens, fwd_hooks=[("blocks.1.attn.hook_q", replace_query)])
    before, after = (logits[rows, batch.last].detach() for logits in (base, cut))
    for prompt in (0, 3):
        widget.prompt, widget.cut = prompt, [query]
        assert widget.answer["error"] == ""
        assert (widget.answer["prompt"], widget.answer["cut"]) == (prompt, [query])
        for metric, logits in zip(widget.answer["metric"], (before, after), strict=True):
            assert metric == pytest.approx(float(from_logits("logit_diff", logits, batch)[prompt]), abs=2e-4)
        both = torch.stack([before[prompt], after[prompt]]).softmax(-1)
        likely = dict.fromkeys([*both.topk(5).indices.flatten().tolist(), int(batch.target[prompt])])
        shown = widget.answer["tokens"]
        assert [token["text"] for token in shown] == [printable(model.tokenizer.decode([token])) for token in likely]
        np.testing.assert_allclose([token["probs"] for token in shown], both[:, list(likely)].T, atol=1e-5)


def test_every_click_moves_the_metric_by_the_score(model: LensModel, words: Rows) -> None:
    batch, circuit = made(model, words)
    widget = live_circuit(model, batch, circuit)
    first = widget.answer
    assert first["metric"] == pytest.approx([circuit.base[0]] * 2, abs=2e-4)
    assert sum(token["right"] for token in first["tokens"]) == 1
    for number, score in enumerate(circuit.scores[:, 0]):
        widget.set_state({"cut": [number]})  # as the page's message does
        assert widget.answer["metric"][1] == pytest.approx(float(circuit.base[0] - score), abs=2e-4)
    one, other = (circuit.edges.index(Edge(head, Logits())) for head in (HEAD, Head(2, 1)))
    for cut in ([one, other], [other], []):  # toggled on, and off again
        widget.cut = cut
    assert widget.answer == first
    assert all(not point.fwd_hooks for point in hook_points(model).values())


@pytest.fixture(scope="module")
def made_gpt2(gpt2: LensModel, words: Rows) -> tuple[LensModel, PromptBatch, Circuit]:
    return gpt2, *made(gpt2, words)


def test_what_the_widget_holds(made_gpt2: tuple[LensModel, PromptBatch, Circuit]) -> None:
    model, batch, circuit = made_gpt2
    widget = live_circuit(model, batch, circuit)
    assert widget.metric == "logit difference"
    assert widget.prompts[2] == f"3: {batch.prompts[2].query}"
    widget.prompt = 2
    assert widget.drawn["prompt"] == 2
    scores = [edge["score"] for edge in widget.drawn["edges"]]
    assert scores == sorted(scores, key=abs, reverse=True)
    drawn = {int(i) for i in re.findall(r'data-edge="(\d+)"', widget.drawn["svg"])}
    assert drawn == {edge["number"] for edge in widget.drawn["edges"]}
    assert json.loads(json.dumps(widget.get_state(["drawn", "answer"]), allow_nan=False))
    assert repr(widget) == "CircuitWidget: prompt 3 of 4, logit difference, 0 edges cut"
    data, _ = widget._repr_mimebundle_()
    assert data["text/plain"] == repr(widget)
    assert data["image/svg+xml"] == widget.drawn["svg"]  # what a saved notebook shows without Python
    assert "application/vnd.jupyter.widget-view+json" in data


def test_a_cut_edge_is_drawn(
    made_gpt2: tuple[LensModel, PromptBatch, Circuit], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weak ones, too, that a page without cuts leaves out."""
    monkeypatch.setattr(live, "EDGES_SHOWN", 3)
    widget = live_circuit(*made_gpt2)
    left_out = next(i for i in range(5) if i not in {edge["number"] for edge in widget.drawn["edges"]})
    widget.cut = [left_out]
    assert left_out in {edge["number"] for edge in widget.drawn["edges"]}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_prompts_are_told_apart_in_any_dtype(folders: dict[str, Path], words: Rows, dtype: torch.dtype) -> None:
    model = load_model(str(folders["gpt2"]), device="cpu", dtype=dtype)
    batch, other = (encode(model, sample_prompts(words, 4, shots=2, seed=seed)) for seed in (3, 4))
    for metric in ("logit_diff", "prob"):
        circuit = find_circuit(model, batch, [HEAD], n_upstream=1, metric=metric)
        live_circuit(model, batch, circuit)
        with pytest.raises(InputError, match="give the model, the batch and the metric"):
            live_circuit(model, other, circuit)


def test_another_metric(made_gpt2: tuple[LensModel, PromptBatch, Circuit]) -> None:
    model, batch, _ = made_gpt2

    def logit_of_right(logits: Tensor, prompts: Any) -> Tensor:
        return logits.gather(1, prompts.target[:, None])[:, 0]

    mine = find_circuit(model, batch, [HEAD], n_upstream=1, metric=logit_of_right)
    with pytest.raises(InputError, match="scored by the function 'logit_of_right': give it, metric=logit_of_right"):
        live_circuit(model, batch, mine)
    widget = live_circuit(model, batch, mine, metric=logit_of_right)
    widget.cut = [1]
    assert widget.answer["metric"][1] == pytest.approx(float(mine.base[0] - mine.scores[1, 0]), abs=2e-4)


def test_what_is_refused(made_gpt2: tuple[LensModel, PromptBatch, Circuit], monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch, circuit = made_gpt2
    with pytest.raises(
        InputError, match="these are 3, and this model has .*: give the model, the batch and the metric"
    ):
        live_circuit(model, batch.select([0, 1, 2]), circuit)
    with pytest.raises(InputError, match="scored on 4 prompts with a logit_diff of"):
        live_circuit(model, batch, replace(circuit, base=circuit.base + 1))
    monkeypatch.delitem(sys.modules, "icl_circuits.viz.live_widget", raising=False)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(InputError, match=re.escape("needs anywidget: run `pip install 'icl_circuits[live]'`")):
        live_circuit(model, batch, circuit)


def test_errors_are_shown(made_gpt2: tuple[LensModel, PromptBatch, Circuit], monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch, circuit = made_gpt2
    widget = live_circuit(model, batch, circuit)
    first = widget.answer
    widget.cut = [999]
    assert widget.answer["error"] == f"edge 999 does not exist: the circuit has edges 0..{len(circuit.edges) - 1}"
    widget.cut = []
    assert widget.answer == first
    widget.prompt = 4
    assert widget.answer["error"] == "prompt 4 does not exist: there are prompts 0..3"
    widget.prompt = 0

    def broken(*args: Any, **options: Any) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr("icl_circuits.viz.live.answer_logits", broken)
    widget.cut = [0]
    assert widget.answer["error"] == "RuntimeError: out of memory"
    assert widget.answer["cut"] == [0]


# --- in a browser -----------------------------------------------------------------------------------------------------

PAGE = """<!DOCTYPE html><html><head><meta charset="utf-8"><style>{css}
body {{ margin: 0; background: {ground}; }}</style>
</head><body><div id="cell"></div><script type="module">
const state = {state}, heard = {{}}, sent = [];
const say = (name) => (heard["change:" + name] || []).forEach((told) => told());
const model = {{
  get: (name) => state[name],
  set: (name, value) => {{ state[name] = value; say(name); }},
  save_changes: () => sent.push({{ prompt: state.prompt, cut: state.cut }}),
  on: (name, told) => (heard[name] = heard[name] || []).push(told),
  off: (name, told) => {{ heard[name] = heard[name].filter((other) => other !== told); }},
}};
const {{ render }} = (await import("data:text/javascript;base64,{esm}")).default;
const cell = document.getElementById("cell"), done = render({{ model, el: cell }});
const $ = (name) => cell.querySelector(name), text = (name) => $(name).textContent;
const later = (milliseconds) => new Promise((go) => setTimeout(go, milliseconds));
await later(50);
{drive}
</script></body></html>"""


def page_of(widget: Any, drive: str, ground: str = "#fff") -> str:
    state = widget.get_state(["prompts", "metric", "prompt", "cut", "drawn", "answer"])
    esm = base64.b64encode(widget._esm.encode()).decode()
    data = json.dumps(state).replace("<", "\\u003c")
    return PAGE.format(css=widget._css, ground=ground, state=data, esm=esm, drive=drive)


def title_of(dom: str) -> Any:
    found = re.search("<title>(.*?)</title>", dom.split("<body", maxsplit=1)[0], re.DOTALL)
    assert found is not None
    return json.loads(html.unescape(found.group(1)))


def test_a_click_in_a_browser(made_gpt2: tuple[LensModel, PromptBatch, Circuit], tmp_path: Path, chromium: str) -> None:
    """The message it sends, what it says while it waits, and the numbers that Python's answer brings."""
    model, batch, circuit = made_gpt2
    widget = live_circuit(model, batch, circuit)
    first, edge = dict(widget.answer), widget.drawn["edges"][0]["number"]
    other = widget.drawn["edges"][-1]["number"]
    widget.cut = [edge]
    answer, widget.cut = dict(widget.answer), []
    drive = f"""
    const said = [[text(".result"), text(".status")]];
    const path = $('.edge[data-edge="{edge}"]');
    path.dispatchEvent(new PointerEvent("pointerenter"));
    said.push(text(".pointed"));
    path.dispatchEvent(new MouseEvent("click", {{ bubbles: true }}));
    said.push(text(".status"), cell.querySelectorAll(".cross").length, $(".edge.cut").dataset.edge);
    model.set("answer", {json.dumps(answer)});
    said.push(text(".status"), text(".result"), [...cell.querySelectorAll("tbody tr")].map((row) => row.textContent));
    const boxes = [...cell.querySelectorAll("input")];
    boxes.at(-1).click();
    said.push($('.edge[data-edge="{other}"]').getAttribute("visibility"));
    boxes[0].click();
    $("button").click();
    said.push(boxes.filter((box) => box.checked).length, cell.querySelectorAll(".cross").length, $("button").disabled);
    model.set("answer", {{ prompt: 0, cut: [], error: "edge <b>9</b> does not exist" }});
    said.push(text(".status"), $(".status").className);
    $("select").value = 1;
    $("select").dispatchEvent(new Event("input"));
    said.push(text(".status"), cell.scrollWidth - cell.clientWidth, cell.classList.contains("dark"));
    done();
    said.push(Object.values(heard).flat().length);
    document.title = JSON.stringify([said, sent]);
    """
    (tmp_path / "live.html").write_text(page_of(widget, drive, ground="#111"), encoding="utf-8")
    opened = open_page(chromium, tmp_path / "live.html", width=700)
    assert opened.console == []
    said, sent = title_of(opened.dom)

    def number(x: float) -> str:
        return ("\u2212" if x < 0 else "+") + f"{abs(x):.3f}"

    before, after = answer["metric"]
    change = f"Logit difference: {number(before)} \u2192 {number(after)} ({number(after - before)}) without 1 edge"
    name = next(one["name"] for one in widget.drawn["edges"] if one["number"] == edge)
    assert said[0] == [f"Logit difference: {number(first['metric'][0])} with every edge", ""]
    assert said[1].startswith(
        f"{name}: alone it adds {number(float(circuit.scores[edge, 0]))} to the logit difference."
    )
    assert said[2:7] == ["Computing\u2026", 1, str(edge), "", change]
    assert len(said[7]) == len(answer["tokens"])
    for row, token in zip(said[7], answer["tokens"], strict=True):
        assert row.startswith(token["text"] + (" right" if token["right"] else ""))
        assert row.count("%") == 2
    assert said[8:12] == ["visible", 0, 0, True]
    assert said[12:14] == ["Error: edge <b>9</b> does not exist", "status error"]
    assert said[14:] == ["Computing\u2026", 0, True, 0]
    cuts = [[edge], sorted([edge, other]), [other], [], []]
    assert sent == [{"prompt": int(i == 4), "cut": cut} for i, cut in enumerate(cuts)]


def test_hostile_strings_in_a_browser(
    made_gpt2: tuple[LensModel, PromptBatch, Circuit], tmp_path: Path, chromium: str
) -> None:
    model, batch, circuit = made_gpt2
    prompts = [replace(prompt, query=HOSTILE[i]) for i, prompt in enumerate(batch.prompts)]
    widget = live_circuit(model, replace(batch, prompts=tuple(prompts)), circuit)
    widget.answer = {**widget.answer, "tokens": [{"text": HOSTILE[0], "probs": [0.1, 0.2], "right": True}]}
    drive = "document.title = JSON.stringify(cell.querySelectorAll('b').length);"
    (tmp_path / "live.html").write_text(page_of(widget, drive), encoding="utf-8")
    opened = open_page(chromium, tmp_path / "live.html")
    assert opened.console == []
    assert title_of(opened.dom) == 1  # the metric's own
