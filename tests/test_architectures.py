"""Every text decoder class that TransformerBridge accepts: each analysis is right, or refused by name.

The table of docs/models.md says which; `python tests/test_architectures.py` writes it anew.
"""

import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest
from analyses import ANALYSES, Plain, outcome
from architectures import decoder_classes, tiny_config
from conftest import save_model, save_tokenizer

import icl_circuits as icl
from icl_circuits.errors import InputError
from icl_circuits.models import load_model
from icl_circuits.models.lens import hooked_transformer_class

DOCUMENT = Path(__file__).parent.parent / "docs" / "models.md"
WRITTEN_ON = "3.9"
"""The TransformerLens that the document's table is of."""


def row(name: str, backend: str, folder: Path) -> list[str]:
    """The table's row of one class: its name, backend and outcomes; or why it cannot be loaded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = load_model(str(folder), backend=backend, device="cpu")
    except InputError as error:
        return [name, backend, _why_not_loaded(str(error))]
    batch = icl.encode(model, icl.sample_prompts(icl.load_rows("word-categories"), 3, shots=2, seed=1))
    plain = Plain(model, batch)
    return [name, backend, *(outcome(model, batch, plain, group) for group in ANALYSES)]


def _why_not_loaded(message: str) -> str:
    reasons = {
        "no per-head z": "not loaded: not all layers have attention heads",
        "heads cannot be told apart": "not loaded: z is not split into heads",
        "computes something else": "not loaded: TransformerLens computes something else than Hugging Face",
        "sees what comes later": "not loaded: an encoder",
        "no conversion for": "not loaded: no conversion",
        "TransformerBridge cannot load": "not loaded: TransformerLens cannot",
        "cannot run": "not loaded: TransformerLens cannot run it",
    }
    return next(words for part, words in reasons.items() if part in message)


@pytest.mark.slow
@pytest.mark.parametrize("name", decoder_classes())
def test_each_decoder_class(tmp_path: Path, name: str) -> None:
    save_model(tmp_path, tiny_config(name, save_tokenizer(tmp_path)))
    rows = [row(name, backend, tmp_path) for backend in backends()]
    if version("transformer_lens").startswith(WRITTEN_ON):
        table = DOCUMENT.read_text(encoding="utf-8")
        for cells in rows:
            if cells[2:] != ["not loaded: no conversion"]:
                assert line(cells) in table.splitlines(), f"{DOCUMENT} lacks {line(cells)}"


def backends() -> tuple[str, ...]:
    return ("bridge",) if hooked_transformer_class() is None else ("bridge", "hooked")


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_table() -> None:
    loaded, absent = [], []
    for name in decoder_classes():
        with tempfile.TemporaryDirectory() as folder:
            save_model(Path(folder), tiny_config(name, save_tokenizer(Path(folder))))
            for backend in backends():
                cells = row(name, backend, Path(folder))
                sys.stdout.write(line(cells) + "\n")
                if len(cells) > 3:
                    loaded.append(line(cells))
                elif "no conversion" not in cells[2]:
                    absent.append(line(cells))
    head = [line(["class", "backend", *ANALYSES]), line(["---"] * (2 + len(ANALYSES)))]
    lines = [*head, *loaded, "", line(["class", "backend", "why"]), line(["---"] * 3), *absent]
    before, mark, _ = DOCUMENT.read_text(encoding="utf-8").partition("<!-- table -->\n")
    DOCUMENT.write_text(f"{before}{mark}\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_table()
