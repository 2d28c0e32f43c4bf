"""Every notebook runs from top to bottom on the real model, says what it should, and is stored with its outputs."""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import transformers
from conftest import require_smollm2, rotary, save_model, save_tokenizer, script

nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
FOLDER = Path(__file__).parent.parent / "notebooks"
ONE_MODEL = "import functools, icl_circuits; icl_circuits.load_model = functools.cache(icl_circuits.load_model)"
"""Run before the notebooks: they share a kernel, emptied between them, and load the same model."""


render = script(FOLDER / "render.py")


@dataclass(frozen=True)
class Ran:
    """What the cells of a notebook gave."""

    outputs: list[Any]

    @property
    def figures(self) -> int:
        return sum("image/png" in output.get("data", {}) for output in self.outputs)

    @property
    def drawings(self) -> int:
        return sum("image/svg+xml" in output.get("data", {}) for output in self.outputs)

    @property
    def html(self) -> list[str]:
        found = (output.get("data", {}).get("text/html") for output in self.outputs)
        return ["".join(html) for html in found if html]

    @property
    def said(self) -> str:
        return "".join(o.text for o in self.outputs if o.output_type == "stream" and o.name == "stdout")

    def number(self, after: str) -> float:
        """The number printed right after some words."""
        found = re.search(rf"{re.escape(after)} ?([+-]?\d[\d.e+-]*\d|\d)", self.said)
        assert found, f"{after!r} is not in {self.said!r}"
        return float(found[1])


# Which heads are selected hangs on the machine's rounding, so effects are only asked to have the right sign and size.


def five_minutes(ran: Ran) -> None:
    assert (ran.figures, len(ran.html)) == (3, 2)
    assert ran.number("clean: logit difference") > 4
    assert ran.number("corrupted: logit difference") < -4
    assert ran.number("alone restores") > 3


def find_heads(ran: Ran) -> None:
    assert (ran.figures, len(ran.html)) == (3, 4)
    assert int(re.search(r"(\d+) of 270 heads: what is lost", ran.said)[1]) > 0  # type: ignore[index]
    before = ran.number("right with nothing zeroed:")
    assert ran.number("right with the heads zeroed at the last position alone:") < before - 0.1
    assert ran.number("checked against run_with_hooks: largest difference") < 1e-3


def two_towers(ran: Ran) -> None:
    assert (ran.figures, len(ran.html)) == (4, 3)
    assert len(re.findall(r"L\d+H\d+': (?:0\.9|1\.0)", ran.said)) >= 2  # heads that copy labels
    assert 0.4 < ran.number("mean AUC: in-context heads") < 0.75
    assert ran.number("mean share: in-context heads") > ran.number("random heads of the same layers")
    assert ran.number("add up to the score within") < 1e-2
    assert int(re.search(r"(\d+) of 32 prompts are answered right both ways", ran.said)[1]) > 0  # type: ignore[index]


def biases(ran: Ran) -> None:
    assert ran.figures == 2
    before, after, random = (ran.number(words) for words in ("fluctuation:", "with the remedy", "with random heads"))
    assert 0 <= after <= before + 0.05 <= 1
    assert 0 <= random <= 1
    before, after = re.search(r"relative: ([\d.]+) -> ([\d.]+)", ran.said).groups()  # type: ignore[union-attr]
    assert float(after) < float(before)  # attention depends less on place once position is out of it


def patching(ran: Ran) -> None:
    assert (ran.figures, len(ran.html)) == (2, 2)
    seconds, loop = re.search(r"270 heads: ([\d.]+) s with three checks; a loop: (\d+) s", ran.said).groups()  # type: ignore[union-attr]
    assert float(seconds) < float(loop)
    assert ran.number("largest difference from run_with_hooks:") < 1e-3
    assert ran.number("rank correlation") > 0.7


def circuit(ran: Ran) -> None:
    assert ran.figures == 1
    assert ran.drawings == 2  # the page's own, for where pages are not kept
    (frame,) = (html for html in ran.html if html.startswith("<iframe"))
    assert "sandbox" in frame[:40]
    assert 'data-node="L' in frame.replace("&quot;", '"').replace("&#34;", '"')
    assert "files: circuit.html circuit.json" in ran.said
    edges = int(re.search(r"(\d+) edges;", ran.said)[1])  # type: ignore[index]
    assert edges > 100
    assert 0 < int(re.search(rf"{edges} edges; (\d+) of the strongest 60", ran.said)[1]) <= 60  # type: ignore[index]
    whole, without = ran.number("the whole model"), ran.number("in-context heads ")
    assert without < whole


def neurons(ran: Ran) -> None:
    assert (ran.figures, len(ran.html)) == (3, 2)
    assert 300 <= ran.number("FFN:") < 1000  # exact scores, of 46080
    prob = {
        name: ran.number(f"{name} zeroed: probability of the answer") for name in ("nothing", "value neurons", "random")
    }
    assert prob["value neurons"] < 0.1 * prob["nothing"]
    assert prob["random"] > 0.5 * prob["nothing"]
    without, control = (
        ran.number(f"{name} zeroed: probability of the answer") for name in ("query neurons", "random queries")
    )
    assert without < 0.5 * control
    assert "Lisbon" in ran.said or "capital" in ran.said


def relations(ran: Ran) -> None:
    """The sentences have relations, some heads stand out, and families are compared."""
    assert (ran.figures, len(ran.html)) == (3, 4)
    assert int(re.search(r"(\d+) triplets of 72 texts", ran.said)[1]) > 200  # type: ignore[index]


def development(ran: Ran) -> None:
    """The small model learns labels in context on the way, and its heads with it."""
    assert (ran.figures, len(ran.html)) == (3, 3)
    shares = [float(share) for share in re.findall(r"step \d+: (\d\.\d+) of the labels right", ran.said)]
    assert len(shares) >= 10
    assert shares[0] < 0.2
    assert shares[-1] > 0.9


CHECKS: dict[str, Callable[[Ran], None]] = {
    "0_in_five_minutes": five_minutes,
    "1_find_in_context_heads": find_heads,
    "2_two_towers": two_towers,
    "3_biases": biases,
    "4_patching_at_speed": patching,
    "5_draw_a_circuit": circuit,
    "6_which_neurons_hold_a_fact": neurons,
    "7_semantic_induction_heads": relations,
    "8_in_context_learning_as_it_forms": development,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning")
@pytest.mark.thorough
def test_notebooks(tmp_path: Path) -> None:
    """On the real model, where `make notebooks` runs them too: a quarter of an hour."""
    require_smollm2()
    _run_all("smollm2-135m", tmp_path, lambda name, ran: CHECKS[name](ran))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning")
def test_notebooks_run_on_another_model(tmp_path: Path) -> None:
    """With the one line changed, on a random model of another architecture, with heads enough to choose from."""
    (folder := tmp_path / "model").mkdir()
    save_model(folder, transformers.GPTNeoXConfig(**rotary(save_tokenizer(folder)) | {"num_hidden_layers": 8}))
    _run_all(str(folder), tmp_path, lambda name, ran: None)


def _run_all(model: str, folder: Path, check: Callable[[str, Ran], None]) -> None:
    """Run every notebook from top to bottom in one kernel, and say all that fails."""
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(CHECKS)
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(nbformat.v4.new_notebook(), timeout=300, resources=resources)
    failures = []
    with client.setup_kernel():
        for name in CHECKS:
            text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
            notebook: Any = nbformat.reads(
                text.replace(r"MODEL = \"smollm2-135m\"", rf"MODEL = \"{model}\""), as_version=4
            )
            notebook.cells.insert(0, nbformat.v4.new_code_cell(f"%reset -f\n{ONE_MODEL}"))
            client.nb = notebook
            try:
                for index, cell in enumerate(notebook.cells):
                    client.execute_cell(cell, index)
                check(name, Ran([out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]))
            except (nbclient.exceptions.CellExecutionError, AssertionError) as error:
                failures.append(f"{name}: {error}")
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("name", CHECKS)
def test_notebooks_are_stored_with_the_outputs_of_their_code(name: str) -> None:
    path = FOLDER / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    stored = notebook.metadata.get("icl_circuits", {}).get("outputs_of")
    assert stored == render.digest(notebook), (
        f"its outputs are not those of its code: python notebooks/render.py {name}"
    )
    cells = render.code_cells(notebook)
    outputs = [output for cell in cells for output in cell.outputs]
    assert Ran(outputs).drawings > 0
    assert path.stat().st_size < 500_000
    assert all(cell.execution_count is None for cell in cells)
    assert all(cell.outputs == render.kept(copy.deepcopy(cell.outputs)) for cell in cells)
    assert "image/png" not in {kind for output in outputs for kind in output.get("data", {})}


@pytest.mark.parametrize("name", CHECKS)
def test_notebooks_have_the_projects_address_and_one_line_for_the_model(name: str) -> None:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    addressed = copy.deepcopy(notebook)
    render.addressed(addressed, name)
    assert notebook == addressed
    assert f"github/{render.REPOSITORY}/blob/main/notebooks/{name}.ipynb" in notebook.cells[0].source
    assert f"git+https://github.com/{render.REPOSITORY}" in notebook.cells[1].source
    model = "icl-small" if name.startswith("8") else "smollm2-135m"
    sources = [cell.source for cell in notebook.cells]
    assert sum(source.startswith("%matplotlib inline") and f'MODEL = "{model}"' in source for source in sources) == 1


@pytest.mark.parametrize("name", CHECKS)
def test_notebooks_end_with_what_you_learnt_in_plain_sentences(name: str) -> None:
    cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    heading, text = cells[-1].source.split("\n\n", 1)
    assert heading == "## What you learnt"
    assert len(re.findall(r"^\d\. ", text, re.MULTILINE)) == 3
    for cell in cells:
        if cell.cell_type == "markdown":
            for sentence in sentences(cell.source):
                assert len(sentence.split()) <= 25, sentence


def sentences(text: str) -> list[str]:
    """The sentences of Markdown text, links as their words alone."""
    words = re.sub(r"\]\([^)]*\)", "]", text)
    blocks = re.split(r"\n\n|\n(?=\d\. )", words)
    return [one for block in blocks for one in re.split(r"(?<=[.?!])\s+", " ".join(block.split()))]


SHOWING = """%matplotlib inline
import sys

import matplotlib.pyplot as plt
from IPython.display import HTML
from tqdm.auto import tqdm

print("one")
print("noise", file=sys.stderr)
for _ in tqdm(range(3)):
    print("two")
plt.plot([1, 2]);"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning")
def test_the_renderer_stores_small_outputs_that_are_the_same_each_time(tmp_path: Path) -> None:
    path = tmp_path / "notebook.ipynb"
    large = 'from IPython.display import HTML\nHTML("x" * 300_000)'
    code = [nbformat.v4.new_code_cell(source, id=f"c{i}") for i, source in enumerate(("", SHOWING, large))]
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title", id="t"), *code]), path)
    render.render(path)
    first = path.read_bytes()
    shown, page = (cell.outputs for cell in nbformat.read(path, as_version=4).cells[2:])
    text, figure = shown
    assert text.text == "one\ntwo\ntwo\ntwo\n"
    assert set(figure.data) == {"image/svg+xml", "text/plain"}
    assert "<metadata>" not in figure.data["image/svg+xml"]
    assert set(page[0].data) == {"text/plain"}
    render.render(path)
    assert path.read_bytes() == first


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning")
def test_a_notebook_that_fails_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "notebook.ipynb"
    cells = [nbformat.v4.new_markdown_cell("# T"), nbformat.v4.new_code_cell(""), nbformat.v4.new_code_cell("1 / 0")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    before = path.read_bytes()
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="ZeroDivisionError"):
        render.render(path)
    assert path.read_bytes() == before
