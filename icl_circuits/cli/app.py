"""The commands, each with its options from the fields of a job.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from icl_circuits.characters import visible
from icl_circuits.cli.batches import batching
from icl_circuits.cli.folders import Force, Out, example
from icl_circuits.cli.option_files import Config, from_file
from icl_circuits.cli.options import error_line
from icl_circuits.cli.printing import console, rich_table, say
from icl_circuits.cli.stores import NoStore, StoreFolder, store_commands, store_of
from icl_circuits.errors import InputError
from icl_circuits.jobs import DataSpec, Dtype, Job, ModelSpec, Settings
from icl_circuits.jobs.job import MODEL, SETTINGS
from icl_circuits.stopping import obey_signals
from icl_circuits.studies import STUDIES, Study
from icl_circuits.studies.study import beginning_of

EXAMPLES = {
    "report": "--model icl-small --heads 4 --out my-report",
    "figures": "my-report --out my-figures",
    "heads": "--model icl-small --heads 4",
    "prompts": "--model icl-small --labels A,B --shots 2",
    "train-small": "--steps 500 --out my-small-model",
    "batch": "jobs.toml --out my-batch",
    "completion": "bash > icl-circuits.bash",
}
"""Of the commands that are no studies: options to begin with."""
Hidden = Parameter(parse=False)
"""A field that a command does without."""


def main(studies: Sequence[Study] = STUDIES) -> None:
    """The command line: bad input gives one line on standard error and exit code 2, a signal ends it at once."""
    obey_signals()
    with _errors_as_lines():
        make_app(studies)(_readable(sys.argv[1:]), exit_on_error=False, print_error=False)


def make_app(studies: Sequence[Study] = STUDIES) -> App:
    """The commands: `report`, one for each study, and those that are no studies.

    Raises:
        InputError: a study is named like another command.
    """
    others: dict[str, Callable[..., None]] = {
        "figures": _figures(studies), "heads": heads, "prompts": prompts, "train-small": train_small,
    }  # fmt: skip
    _require_own_names(studies, (*EXAMPLES, "store"))
    look: dict[str, Any] = {
        "help_flags": "--help", "help_format": "plaintext",
        "default_parameter": Parameter(negative=(), allow_repeating=True),
    }  # fmt: skip
    app = App(
        name="icl-circuits",
        help="Find and test the in-context heads of a language model.",
        help_epilogue=example("report", EXAMPLES["report"]),
        version=lambda: f"icl-circuits {version('icl_circuits')}",
        config=from_file,
        **look,
    )
    app["--help"].help = "Show this message and exit."
    app["--version"].help = "Show the version and exit."
    together = [study for study in studies if study.in_report]
    found = "Find the in-context heads, test what each does, and write results, figures and a page."
    named = {"report": together} | {study.command: [study] for study in studies}
    others["batch"], others["completion"] = batching(app, named), _completing(app)
    report = {"help": found, "help_epilogue": example("report", EXAMPLES["report"])}
    app.command(_writing(together, "icl-report"), name="report", sort_key=0, **report)
    for place, study in enumerate(studies, start=1):
        shown = {"help": study.help, "help_epilogue": example(study.command, study.example)}
        app.command(_writing([study], study.out), name=study.command, sort_key=place, **shown)
    for place, (name, command) in enumerate(others.items(), start=len(studies) + 1):
        app.command(command, name=name, sort_key=place, help_epilogue=example(name, EXAMPLES[name]))
    app.command(store_commands(sort_key=len(studies) + len(others) + 1, **look))
    return app


def _require_own_names(studies: Sequence[Study], taken: tuple[str, ...]) -> None:
    """Raise `InputError` for a study that has the command of another, or one of `taken`."""
    commands = [*taken, *(study.command for study in studies)]
    twice = next((command for i, command in enumerate(commands) if command in commands[:i]), None)
    if twice is not None:
        raise InputError(f"a study's command {twice!r} exists already: give the study another name")


def _readable(arguments: Sequence[str]) -> Sequence[str]:
    """The arguments, all of which are text. Raises `InputError` for bytes that are no UTF-8, and for null."""
    for argument in arguments:
        if "\0" in argument or any("\ud800" <= c <= "\udfff" for c in argument):
            raise InputError(f"argument {argument!r} is not text in UTF-8: rename what it names")
    return arguments


@contextmanager
def _errors_as_lines() -> Iterator[None]:
    """Errors that are no bugs, and warnings, as one line each."""
    before = warnings.formatwarning
    warnings.formatwarning = _warning
    try:
        yield
    except (InputError, CycloptsError, OSError) as error:
        print(f"icl-circuits: error: {visible(error_line(error))}", file=sys.stderr)
        sys.exit(2)
    finally:
        warnings.formatwarning = before


def _warning(message: Warning | str, *_: Any, **__: Any) -> str:
    """A warning as a line, in place of the bar of progress."""
    from icl_circuits.progress import clear

    clear()
    return f"icl-circuits: warning: {visible(str(message))}\n"


def _writing(studies: Sequence[Study], folder: str) -> Callable[..., None]:
    """A command that runs `studies`, which begin alike, and writes a folder; its options are their job's fields."""
    kind: Any = beginning_of(studies).job

    def command(
        *,
        job: kind = kind(),  # noqa: B008
        out: Out = Path(folder),
        force: Force = False,
        store: StoreFolder = None,
        no_store: NoStore = False,
        config: Config = None,
    ) -> None:
        from icl_circuits.studies import run_job

        outcome = run_job(job, studies, out, force=force, store=store_of(store, no_store))
        screen = console()
        for title, table in (shown for part in outcome.parts for shown in part.shown):
            screen.print(rich_table(table, title))
        for study in outcome.left_out:
            say(f"Left out: {study.study}: {study.why}")
        for name in (name for part in outcome.parts for name in part.files):
            say(f"Also: {out / name}")
        say(f"Report: {out / 'report.html'}")

    return command


def _figures(studies: Sequence[Study]) -> Callable[..., None]:
    """The command that draws what any of `studies` wrote."""

    def command(
        results: Annotated[Path, Parameter(help="A folder of a report or a study, or the .safetensors file in it.")],
        /,
        *,
        out: Out = Path("figures"),
        force: Force = False,
    ) -> None:
        """Draw a paper's figures from results: PDF, PNG and SVG at a column's width, with captions as text files."""
        from icl_circuits.report import DAMAGED, new_folder, write_figures
        from icl_circuits.studies import figures_of, load_results

        found, figures = load_results(results, studies), figures_of(studies)
        with new_folder(out, "figures", force=force) as folder:
            try:
                names = write_figures(found, folder, figures)
            except OSError:  # the disk's, not of the file that was read
                raise
            except DAMAGED as error:  # numbers of the right shapes that cannot be drawn all the same
                raise InputError(
                    f"{str(results)!r} holds values that no study wrote ({error}): run it again"
                ) from error
            if not names:
                raise InputError(f"{str(results)!r} holds nothing that a figure is drawn of: give a report's folder")
        say(f"Figures in {out}: {', '.join(names)}")

    return command


def _completing(app: App) -> Callable[..., None]:
    """The command that prints what a shell completes commands and options with."""

    def command(shell: Literal["bash", "zsh", "fish", "powershell"], /) -> None:
        """Print a script with which a shell completes commands and options; nothing is written."""
        sys.stdout.write(app.generate_completion(prog_name="icl-circuits", shell=shell))

    return command


def heads(
    *,
    job: Job = Job(),  # noqa: B008
    store: StoreFolder = None,
    no_store: NoStore = False,
    config: Config = None,
) -> None:
    """Find the in-context heads and print their scores; no folder is written."""
    from icl_circuits.progress import run_of
    from icl_circuits.studies import begin_job, begun, load_data, sample_job, steps_of
    from icl_circuits.studies.shown import head_table

    sampled = sample_job(load_data(job.data), job.settings)
    with run_of(steps_of(begun, (), sampled)):
        found = begin_job(job, begun, sampled, store_of(store, no_store))
    console().print(rich_table(head_table(found.scores.selected), "In-context heads"))


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True)
class Tokenized(ModelSpec):
    """A model of which the tokenizer matters, not the weights."""

    dtype: Annotated[Dtype, Hidden] = "float32"
    device: Annotated[str | None, Hidden] = None


@Parameter(name="*", group=SETTINGS)
@dataclass(frozen=True)
class Shown(Settings):
    """The settings of prompts alone."""

    prompts: int = 1
    """How many to show."""
    heads: Annotated[int, Hidden] = 1


def prompts(
    *,
    model: Tokenized = Tokenized(),
    data: DataSpec = DataSpec(),  # noqa: B008
    settings: Shown = Shown(),
    store: StoreFolder = None,
    no_store: NoStore = False,
    config: Config = None,
) -> None:
    """Show prompts token by token (between bars), their label positions and last position marked."""
    from rich.text import Text

    from icl_circuits.prompts import encode
    from icl_circuits.studies import load_data, load_spec, outline_spec, sample_job
    from icl_circuits.studies.shown import marked_tokens, with_whole_characters

    sampled = sample_job(load_data(data), settings)
    known = outline_spec(model, store_of(store, no_store)) or load_spec(model)
    batch = encode(known, sampled.selection, separator=settings.separator)
    screen = console()
    for row, prompt in enumerate(sampled.selection):
        marked = with_whole_characters(known, batch.tokens[row].tolist(), marked_tokens(known, batch, row))
        tokens = [
            Text(visible(token.text) + ("" if token.kind == "plain" else f"<{token.kind} {token.position}>"),
                 style="" if token.kind == "plain" else "bold reverse")
            for token in marked
        ]  # fmt: skip
        screen.print(Text("|").join(tokens), soft_wrap=True)
        say(f"right answer: {settings.labels[prompt.gold]} ({prompt.origin})")


def train_small(
    *,
    out: Out = Path("icl-trained"),
    steps: Annotated[int, Parameter(help="Batches to train on.", show_default="2000")] | None = None,
    seed: Annotated[int, Parameter(help="Of the weights and the texts; 1 is that of the package.")] = 1,
    force: Force = False,
) -> None:
    """Train the small model of the package again, with its checkpoints: six minutes on 2 cores."""
    from icl_circuits.report import new_folder
    from icl_circuits.small import STEPS, train_small

    with new_folder(out, "checkpoints", force=force) as folder:
        train_small(folder, steps=STEPS if steps is None else steps, seed=seed)
    say(f"Checkpoints: {out}")
