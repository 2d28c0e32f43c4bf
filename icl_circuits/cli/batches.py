"""A grid of jobs from a file, on the command line."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from icl_circuits.cli.folders import Force, Out
from icl_circuits.cli.option_files import read_toml, text_of
from icl_circuits.cli.printing import console, rich_table, say
from icl_circuits.cli.stores import StoreFolder, store_of
from icl_circuits.errors import InputError
from icl_circuits.studies.study import Study, beginning_of

if TYPE_CHECKING:
    from icl_circuits.studies.batch import Done, Task

COMMAND = "run"
"""The key that names commands."""
GRID = "grid"
"""The key of several grids."""
OF_ALL = ("out", "force", "store", "no_store", "config", "help", "version")
"""Options that are of the whole batch."""
Engine = Literal["local", "ray"]


def batching(app: App, studies: Mapping[str, Sequence[Study]]) -> Callable[..., None]:
    """The command that runs a grid. Its jobs are read as the commands of `app` read their options."""

    def command(
        jobs: Annotated[Path, Parameter(help="A .toml file: options of the commands, lists of them to try each.")],
        /,
        *,
        out: Out = Path("icl-batch"),
        force: Force = False,
        store: StoreFolder = None,
        shard: Annotated[str | None, Parameter(help="I/N: compute the I-th of N parts, and write no table.")] = None,
        engine: Annotated[Engine, Parameter(help="One job after the other here, or tasks on a Ray cluster.")] = "local",
        address: Annotated[str | None, Parameter(help="Of the Ray cluster. Default: one is started here.")] = None,
    ) -> None:
        """Run a grid of jobs into one store and one table, with intervals over seeds."""
        from icl_circuits.report import new_folder
        from icl_circuits.studies.batch import refusals, run_here, write_batch
        from icl_circuits.studies.on_ray import run_on_ray

        tasks = read_jobs(jobs, app, studies)
        kept = store_of(store, no_store=False)
        if kept is None:
            raise InputError("a batch needs a store, where its jobs meet: name a folder with --store")
        if address is not None and engine != "ray":
            raise InputError(f"--address {address!r} is of a Ray cluster: add --engine ray")
        mine = tasks[_shard(shard)]
        refused = refusals(mine, kept)
        _require_some(refused, mine)
        _say_left_out(refused)
        names = {str(one.task) for one in refused}
        fit = [task for task in mine if str(task) not in names]

        def run() -> list["Done"]:
            found = run_on_ray(fit, kept, address) if engine == "ray" else run_here(fit, kept)
            return [*refused, *found]

        if shard is not None:
            done = run()
            _say_left_out(done[len(refused) :])
            n_done = sum(not one.why_not for one in done)
            say(f"Shard {shard}: {n_done} of {len(tasks)} jobs are in {kept.folder}")
            _require_some(done, mine)
            return
        with new_folder(out, "batch", force=force) as folder:
            place = {str(task): i for i, task in enumerate(tasks)}
            done = sorted(run(), key=lambda one: place[str(one.task)])
            shown = write_batch(done, folder)
        console().print(rich_table(shown, "Means over seeds"))
        _say_left_out(one for one in done if str(one.task) not in names)
        say(f"Table: {out / 'table.csv'}, over seeds: {out / 'seeds.csv'}")
        _require_some(done, mine)

    return command


def _say_left_out(done: Iterable["Done"]) -> None:
    for one in done:
        if one.why_not:
            say(f"Left out: {one.task}: {one.why_not}")


def _require_some(done: Sequence["Done"], asked: Sequence["Task"]) -> None:
    if done and sum(bool(one.why_not) for one in done) == len(asked):
        raise InputError(f"none of {len(done)} jobs could be done; job {str(done[0].task)!r}: {done[0].why_not}")


def read_jobs(path: Path, app: App, studies: Mapping[str, Sequence[Study]]) -> list["Task"]:
    """The jobs of a grid, every list of options tried with every other; all are read before one is run.

    Raises:
        InputError: a file that is no TOML, an option or command that there is not, a value that does not fit, data that
            cannot be read.
    """
    from icl_circuits.studies.batch import prepare

    tasks = [_task(path, app, studies, cell) for grid in _grids(path) for cell in _cells(path, grid)]
    if not tasks:
        raise InputError(f"{str(path)!r} names no job: a list in it is empty")
    for i, task in enumerate(tasks):
        twin = next((other for other in tasks[:i] if (other.command, other.job) == (task.command, task.job)), None)
        if twin is not None:
            raise InputError(f"{str(path)!r} names one job twice, as {str(twin)!r} and {str(task)!r}: name each once")
    for task in tasks:
        try:
            prepare(task)
        except InputError as error:
            raise InputError(f"{str(path)!r}, job {str(task)!r}: {error}") from error
    return tasks


def _grids(path: Path) -> list[dict[str, Any]]:
    read = read_toml(path, "jobs file")
    several = read.pop(GRID, [{}])
    if not isinstance(several, list) or not all(isinstance(grid, dict) for grid in several):
        raise InputError(f"{str(path)!r} has a {GRID} that is no table: write [[{GRID}]] above its options")
    return [read | grid for grid in several]


def _cells(path: Path, grid: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One value for each option, in every combination."""
    if COMMAND not in grid:
        raise InputError(f'{str(path)!r} does not say what to run: add {COMMAND} = "report", or a list of commands')
    axes = [value if isinstance(value, list) else [value] for value in grid.values()]
    for values in product(*axes):
        yield dict(zip(grid, values, strict=True))


def _task(path: Path, app: App, studies: Mapping[str, Sequence[Study]], cell: dict[str, Any]) -> "Task":
    from icl_circuits.studies.batch import Task
    from icl_circuits.studies.running import resolved

    command = str(cell[COMMAND])
    if command not in studies:
        raise InputError(f"{str(path)!r} runs {command!r}: give one of {', '.join(studies)}")
    given = {name: value for name, value in cell.items() if name != COMMAND}
    options = {name: text_of(path, name, value) for name, value in given.items()}
    words = [_word(path, name, given[name], text) for name, text in options.items() if given[name] is not False]
    try:
        _, bound, _ = app.parse_args([command, *words], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise InputError(f"{str(path)!r}: {error}") from error
    chosen = tuple(studies[command])
    job = bound.arguments.get("job", beginning_of(chosen).job())
    for name, value in given.items():
        _require_taken(path, job, name.replace("-", "_"), value)
    return Task(command, options, resolved(job, chosen), chosen)


def _require_taken(path: Path, job: Any, name: str, value: Any) -> None:
    """Raise `InputError` for a number or truth value that an option of another kind does not take as it is."""
    found = next((getattr(part, name) for part in (job, *vars(job).values()) if hasattr(part, name)), None)
    is_number = isinstance(value, int | float) and isinstance(found, int | float)
    if is_number and (found != value or isinstance(found, bool) != isinstance(value, bool)):
        raise InputError(f"{str(path)!r} gives {name} the value {value}, but takes such as {found}: correct it there")


def _word(path: Path, name: str, value: Any, text: str) -> str:
    """An option as one word of a command line."""
    option = "--" + name.replace("_", "-")
    if name.replace("-", "_") in OF_ALL:
        raise InputError(f"{str(path)!r} has {name}, which is of the whole batch: give {option} on the command line")
    return option if value is True else f"{option}={text}"


def _shard(shard: str | None) -> slice:
    """Which tasks a shard computes: each n-th, from the i-th on."""
    if shard is None:
        return slice(None)
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    place, n = (int(number) for number in found.groups()) if found else (0, 0)
    if not 1 <= place <= n:
        raise InputError(f"--shard {shard!r} is no part: give 1/4, 2/4, 3/4 or 4/4, say")
    return slice(place - 1, None, n)
