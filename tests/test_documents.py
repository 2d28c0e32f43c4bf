"""The code that documents show runs, from top to bottom, as a reader would run it."""

import re
from pathlib import Path
from typing import Any

import pytest

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
