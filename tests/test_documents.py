"""The code that documents show runs, from top to bottom, as a reader would run it."""

import re
from pathlib import Path
from typing import Any

import pytest

from icl_circuits.models import TOKENS_AT_ONCE
from icl_circuits.studies.begun import DETAILED
from icl_circuits.studies.circuit import run as circuit_run
from icl_circuits.studies.in_context import run as in_context_run
from icl_circuits.viz.views import CELLS_AT_MOST

FOLDER = Path(__file__).parent.parent


def code_of(document: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (FOLDER / document).read_text(encoding="utf-8"), re.DOTALL))


def test_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Any] = {}
    exec(code_of("README.md"), found)
    assert "p_drop" in capsys.readouterr().out
    assert found["logits"].shape[0] == len(found["batch"])


@pytest.mark.slow
def test_the_tutorial_runs_and_says_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Any] = {}
    exec(code_of("docs/tutorial.md"), found)
    said, told = capsys.readouterr().out, (FOLDER / "docs" / "tutorial.md").read_text(encoding="utf-8")
    assert found["batch"].texts[0] in told
    assert said.splitlines()[1] == "1.0"
    selected = [(head.layer, head.head) for head in found["scores"].selected.heads]
    shown = re.findall(r"^\d +(\d) +(\d) +(?:foo|bar) ", told, re.MULTILINE)
    assert selected == [(int(layer), int(head)) for layer, head in shown]
    assert f"falls to {found['groups'].all.answers.top1.mean():.2f}" in told
    effects = found["states"].to_frame().groupby("layer")["effect"].mean()
    assert effects[0] < -1
    assert abs(effects[3]) < 0.1
    assert found["features"].copying().mean() == 1
    assert found["circuit"].to_frame().loc[0, "sender"] == "query"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("patching.md", f"in parts of at most {TOKENS_AT_ONCE:,} tokens"),
        ("bigger-models.md", f"in parts of {TOKENS_AT_ONCE:,} tokens"),
        ("bigger-models.md", f"on the first {DETAILED} test prompts"),
        ("in-context-heads.md", f"in {in_context_run.RANDOM_DRAWS} draws"),
        ("in-context-heads.md", f"at most {CELLS_AT_MOST:,} numbers".replace(",", " ")),
        ("circuits.md", f"scores the first {circuit_run.PROMPTS} test prompts"),
    ],
)
def test_documents_name_the_limits_of_the_code(document: str, said: str) -> None:
    words = " ".join((FOLDER / "docs" / document).read_text(encoding="utf-8").split())
    assert said in words
