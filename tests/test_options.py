"""Options from a file, what shells complete, and what every help ends with."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icl_circuits import cli
from icl_circuits.cli import make_app
from icl_circuits.jobs import Job
from icl_circuits.studies import STUDIES

COMMANDS = ("report", *(study.command for study in STUDIES), "figures", "heads", "prompts", "train-small", "batch")


def parsed(*words: str) -> dict[str, Any]:
    """The arguments that a command line gives to its command."""
    _, bound, _ = make_app().parse_args(words, exit_on_error=False, print_error=False)
    return dict(bound.arguments)


def job_of(file: Path, text: str, *words: str) -> Job:
    file.write_text(text, encoding="utf-8")
    job: Job = parsed("report", "--config", str(file), *words)["job"]
    return job


def test_a_file_gives_options_and_the_command_line_overrides_it(tmp_path: Path) -> None:
    text = 'model = "icl-small"\nlabels = ["A", "B"]\nheads = 3\nn-ctx = 50\nseparator = "\\n"\ntext_column = "body"\n'
    job = job_of(tmp_path / "o.toml", text, "--heads", "5")
    assert (job.model.model, job.model.n_ctx, job.data.text_column) == ("icl-small", 50, "body")
    assert (job.settings.labels, job.settings.heads, job.settings.separator) == (("A", "B"), 5, "\n")
    assert job.settings.prompts == Job().settings.prompts


def test_a_file_sets_flags(tmp_path: Path) -> None:
    (tmp_path / "o.toml").write_text('force = true\nno-store = false\nout = "there"\n')
    found = parsed("towers", "--config", str(tmp_path / "o.toml"))
    assert (found["force"], found["no_store"], found["out"]) == (True, False, Path("there"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('modle = "x"', "o.toml' has 'modle', but 'report' has no such option"),
        ("[report]\nheads = 3", "has 'report', but 'report' has no such option"),
        ('config = "o.toml"', "has 'config', but"),
        ("help = true", "has 'help', but"),
        ("heads = true", "gives heads the value true, which --heads does not take"),
        ("heads = 4.5", "gives heads the value 4.5, which --heads does not take"),
        ("checkpoint = 4.5", "gives checkpoint the value 4.5, which --checkpoint does not take"),
        ("force = 1", "gives force the value 1, which --force does not take"),
        ("heads = ", "is not TOML"),
        ("labels = [[1]]", "gives labels the value [[1]]: give a text"),
        ('heads = "x"', 'Invalid value for --heads from o.toml: unable to convert "x" into int'),
        ('dtype = "float8"', "from o.toml"),
    ],
)
def test_a_wrong_file_is_one_clear_error(refused: Callable[..., str], tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "o.toml").write_text(text)
    assert message in refused("report", "--config", "o.toml")


def test_a_file_that_is_not_there(refused: Callable[..., str]) -> None:
    assert "options file 'o.toml' cannot be read" in refused("heads", "--config", "o.toml")


@pytest.mark.parametrize("command", [*COMMANDS, "completion", "store", "store list", "store size", "store prune", ""])
def test_every_help_ends_with_an_example_that_is_understood(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_app()([*command.split(), "--help"], result_action="return_value")
    shown = capsys.readouterr().out
    example = shown[shown.index("Example: icl-circuits") :].split()[2:]
    assert " ".join(example).startswith(command)
    words = shlex.split(" ".join(example).partition(" >")[0])
    assert len(words) > 1
    assert parsed(*words) is not None


@pytest.mark.parametrize("command", ["report", *(study.command for study in STUDIES)])
def test_options_are_in_groups(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_app()([command, "--help"], result_action="return_value")
    assert re.findall(r"╭─ (\w+) ─", capsys.readouterr().out) == ["Model", "Data", "Settings", "Output"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_reads_its_completion(
    shell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cli.app, "obey_signals", lambda: None)
    monkeypatch.setattr(sys, "argv", ["icl-circuits", "completion", shell])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    script = capsys.readouterr().out
    assert not stopped.value.code
    assert "text-column" in script
    assert list(tmp_path.iterdir()) == []  # nothing is written
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", tmp_path / "script"], check=True)


def test_an_unknown_shell_is_named(refused: Callable[..., str]) -> None:
    assert "powershell" in refused("completion", "csh")
