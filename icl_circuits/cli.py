"""The command line. Heavy modules are imported inside the commands, so that `--help` answers at once."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from icl_circuits.errors import InputError

if TYPE_CHECKING:
    import rich.console
    import rich.table

    import icl_circuits.models
    import icl_circuits.report
    import icl_circuits.viz

    Load = Callable[[], icl_circuits.models.LensModel]
    Write = Callable[[icl_circuits.report.Plan, Load, Path, bool], None]

app = typer.Typer(
    name="icl-circuits",
    help="Find and test the in-context heads of a language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ModelOption = Annotated[
    str, typer.Option("--model", help="Hub name, local Hugging Face folder, .gguf file, or smollm2-135m.")
]
DataOption = Annotated[str, typer.Option("--data", help="word-categories, a .csv or .jsonl file, or hf:NAME.")]
TextColumnOption = Annotated[str, typer.Option("--text-column", help="Column of the data with the texts.")]
LabelColumnOption = Annotated[str, typer.Option("--label-column", help="Column of the data with the classes.")]
LabelsOption = Annotated[str, typer.Option("--labels", help="Label words, one token each, comma-separated.")]
ShotsOption = Annotated[int, typer.Option("--shots", help="Demonstrations of each label.")]
PromptsOption = Annotated[int, typer.Option("--prompts", help="Prompts to select on, and as many to test on.")]
HeadsOption = Annotated[int, typer.Option("--heads", help="In-context heads to select.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of every random choice.")]
SeparatorOption = Annotated[
    str,
    typer.Option(
        "--separator",
        help="Between demonstrations; \\n stands for a new line.",
        show_default="one space, as in the paper",
    ),
]
BackendOption = Annotated[
    Literal["hooked", "bridge"] | None,
    typer.Option("--backend", help="HookedTransformer or TransformerBridge. Default: hooked where installed."),
]
RevisionOption = Annotated[str | None, typer.Option("--revision", help="Hub branch, tag or commit of the model.")]
DtypeOption = Annotated[
    Literal["float32", "float64", "bfloat16", "float16"], typer.Option("--dtype", help="Of the model's weights.")
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="Default: the one TransformerLens chooses.")]


@app.callback(invoke_without_command=True)
def main_options(
    show_version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    """Find and test the in-context heads of a language model."""
    if show_version:
        typer.echo(f"icl-circuits {version('icl_circuits')}")
        raise typer.Exit


def _writing_command(
    name: str,
    out_default: str,
    out_help: str,
    help_text: str,
    write: "Write",
) -> None:
    """A command with the report's options: `write` is given the plan, the model to be loaded, `--out` and `--force`."""

    @app.command(name, help=help_text)
    def command(
        model: ModelOption = "smollm2-135m",
        data: DataOption = "word-categories",
        text_column: TextColumnOption = "text",
        label_column: LabelColumnOption = "label",
        labels: LabelsOption = "foo,bar",
        shots: ShotsOption = 4,
        prompts: PromptsOption = 64,
        heads: HeadsOption = 12,
        seed: SeedOption = 0,
        separator: SeparatorOption = " ",
        backend: BackendOption = None,
        revision: RevisionOption = None,
        dtype: DtypeOption = "float32",
        device: DeviceOption = None,
        out: Annotated[Path, typer.Option("--out", help=out_help)] = Path(out_default),
        force: Annotated[bool, typer.Option("--force", help="Replace what --out names if it exists.")] = False,
    ) -> None:
        from icl_circuits.prompts import load_rows
        from icl_circuits.report import plan

        settings = _settings(labels, shots, prompts, heads, seed, separator)
        planned = plan(load_rows(data, text_column=text_column, label_column=label_column), settings)
        write(planned, lambda: _load(model, backend, revision, dtype, device), out, force)


def _writing_studies(
    *studies: str,
) -> "Write":
    """Selects heads, runs `studies` of `icl_circuits.report` on them, and writes a folder."""

    def write(
        planned: "icl_circuits.report.Plan",
        load: "Load",
        out: Path,
        force: bool,
    ) -> None:
        from icl_circuits import report

        console = _console()
        with report.new_folder(out, force=force) as folder:
            begun = report.start(load(), planned)
            parts, left_out = report.run_studies(begun, [getattr(report, study) for study in studies])
            report.write(begun, parts, folder, title=f"In-context heads of {begun.provenance['name']}")
        for title, table in (shown for part in parts for shown in part.shown):
            console.print(_rich(table, title))
        for reason in left_out:
            console.print(f"Left out: {reason}", soft_wrap=True, highlight=False, markup=False)
        console.print(f"Report: {out / 'report.html'}", soft_wrap=True, highlight=False, markup=False)

    return write


def _write_circuit(
    planned: "icl_circuits.report.Plan",
    load: "Load",
    out: Path,
    force: bool,
) -> None:
    """Selects heads, finds the circuit through them, and writes a page, a drawing and the numbers."""
    import json

    from icl_circuits import report
    from icl_circuits.circuits import to_json

    if out.suffix != ".html":
        raise InputError(f"--out {str(out)!r} must end in .html")
    console = _console()
    with report.new_files(out, (".svg", ".json", ".safetensors"), force=force) as (page, drawing, numbers, results):
        begun = report.start(load(), planned)
        view = report.circuit_study(begun)
        view.save(page)
        drawing.write_text(view.to_svg(), encoding="utf-8")
        numbers.write_text(json.dumps(to_json(view.circuit), indent=1) + "\n", encoding="utf-8")
        values = {"circuit": view.circuit, "circuit_reversed": view.reversed, "circuit_test": view.test}
        report.save_results(report.Results(begun.about, {"selected": begun.scores.selected} | values), results)
    console.print(_rich(view.test_table(), f"Heads alone and left out, best first: {view.circuit.metric}"))
    console.print(f"Circuit: {out}", soft_wrap=True, highlight=False, markup=False)


_writing_command(
    "report",
    "icl-report",
    "Folder to write.",
    "Find the in-context heads, test what each does, and write results, figures and a page.",
    _writing_studies("in_context_study", "tower_study", "bias_study"),
)
_writing_command(
    "towers",
    "icl-towers",
    "Folder to write.",
    "What each in-context head does: OV label features, QK two towers, flow, label reversal.",
    _writing_studies("tower_study"),
)
_writing_command(
    "biases",
    "icl-biases",
    "Folder to write.",
    "Majority-label and recency bias, before and after their mitigations.",
    _writing_studies("bias_study"),
)
_writing_command(
    "circuit",
    "circuit.html",
    "Page to write; .svg, .json and .safetensors go beside it.",
    "Find the circuit through the in-context heads, and write an interactive page, a drawing and the numbers.",
    _write_circuit,
)


@app.command("figures")
def figures_command(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="A folder of a report, or the .safetensors file of a circuit.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")] = Path("figures"),
    force: Annotated[bool, typer.Option("--force", help="Replace what --out names if it exists.")] = False,
) -> None:
    """Draw a paper's figures from results: PDF, PNG and SVG at a column's width, with captions as text files."""
    from icl_circuits import report

    found = report.load_results(results)
    with report.new_folder(out, force=force, ours=report.are_figures) as folder:
        names = report.write_figures(found, folder)
    _console().print(f"Figures in {out}: {', '.join(names)}", soft_wrap=True, highlight=False, markup=False)


@app.command("heads")
def heads_command(
    model: ModelOption = "smollm2-135m",
    data: DataOption = "word-categories",
    text_column: TextColumnOption = "text",
    label_column: LabelColumnOption = "label",
    labels: LabelsOption = "foo,bar",
    shots: ShotsOption = 4,
    prompts: PromptsOption = 64,
    heads: HeadsOption = 12,
    seed: SeedOption = 0,
    separator: SeparatorOption = " ",
    backend: BackendOption = None,
    revision: RevisionOption = None,
    dtype: DtypeOption = "float32",
    device: DeviceOption = None,
) -> None:
    """Find the in-context heads and print their scores; nothing is written."""
    from icl_circuits.prompts import load_rows
    from icl_circuits.report import head_table, plan, score_heads

    settings = _settings(labels, shots, prompts, heads, seed, separator)
    planned = plan(load_rows(data, text_column=text_column, label_column=label_column), settings)
    scores = score_heads(_load(model, backend, revision, dtype, device), planned)
    _console().print(_rich(head_table(scores.selected), "In-context heads"))


@app.command("prompts")
def prompts_command(
    model: ModelOption = "smollm2-135m",
    data: DataOption = "word-categories",
    text_column: TextColumnOption = "text",
    label_column: LabelColumnOption = "label",
    labels: LabelsOption = "foo,bar",
    shots: ShotsOption = 4,
    prompts: Annotated[int, typer.Option("--prompts", help="How many to show.")] = 1,
    seed: SeedOption = 0,
    separator: SeparatorOption = " ",
    backend: BackendOption = None,
    revision: RevisionOption = None,
) -> None:
    """Show prompts token by token (between bars), their label positions and last position marked."""
    from rich.text import Text

    from icl_circuits.prompts import encode, load_rows
    from icl_circuits.report import marked_tokens, plan

    settings = _settings(labels, shots, prompts, 1, seed, separator)
    planned = plan(load_rows(data, text_column=text_column, label_column=label_column), settings)
    lens = _load(model, backend, revision, "float32", None)
    batch = encode(lens, planned.selection, separator=settings.separator)
    console = _console()
    for row, prompt in enumerate(planned.selection):
        tokens = [
            Text(token.text if token.kind == "plain" else f"{token.text}<{token.kind} {token.position}>",
                 style="" if token.kind == "plain" else "bold reverse")
            for token in marked_tokens(lens, batch, row)
        ]  # fmt: skip
        console.print(Text("|").join(tokens), soft_wrap=True)
        console.print(Text(f"right answer: {settings.labels[prompt.gold]} ({prompt.origin})"), soft_wrap=True)


def main() -> None:
    """The console script: bad input gives one line on standard error and exit code 2."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a half-written folder is removed
    with _errors_as_lines():
        app()


@contextmanager
def _errors_as_lines() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        print(f"icl-circuits: error: {error}", file=sys.stderr)
        sys.exit(2)


def _settings(
    labels: str, shots: int, prompts: int, heads: int, seed: int, separator: str
) -> "icl_circuits.report.Settings":
    from icl_circuits.report import Settings

    words = tuple(word.strip() for word in labels.split(","))
    return Settings(words, shots, prompts, heads, seed, separator.replace("\\n", "\n").replace("\\t", "\t"))


def _load(
    name: str, backend: Literal["hooked", "bridge"] | None, revision: str | None, dtype: str, device: str | None
) -> "icl_circuits.models.LensModel":
    import torch

    from icl_circuits.models import load_model

    return load_model(name, backend=backend, revision=revision, dtype=getattr(torch, dtype), device=device)


def _console() -> "rich.console.Console":
    from rich.console import Console

    return Console()


def _rich(table: "icl_circuits.viz.Table", title: str) -> "rich.table.Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    rich = RichTable(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        rich.add_column(column)
    for row in table.rows:
        rich.add_row(*(Text(cell) for cell in row))
    return rich
