"""The store on the command line: which one a run uses, and the commands that look after it."""

import warnings
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from icl_circuits.cli.folders import OUTPUT, example
from icl_circuits.cli.printing import console, rich_table, say
from icl_circuits.errors import InputError

if TYPE_CHECKING:
    import icl_circuits.store

StoreFolder = Annotated[
    Path | None,
    Parameter(
        name="store",
        help="Folder that keeps finished steps.",
        show_default=lambda _: "in the user's cache",
        group=OUTPUT,
    ),
]
NoStore = Annotated[bool, Parameter(help="Compute every step, and keep none.", show_default=False, group=OUTPUT)]


def store_of(folder: Path | None, no_store: bool) -> "icl_circuits.store.Store | None":
    """The store of a run. One that nobody named is done without where it cannot be written."""
    from icl_circuits.store import Store, default_folder

    if no_store:
        if folder is not None:
            raise InputError(f"--store {str(folder)!r} and --no-store: give one of them")
        return None
    try:
        return Store(folder or default_folder())
    except InputError as error:
        if folder is not None:
            raise
        warnings.warn(f"steps are not kept: {error}", stacklevel=2)
        return None


def _opened(folder: Path | None) -> "icl_circuits.store.Store":
    """A store that is there."""
    from icl_circuits.store import MARK, Store, default_folder

    folder = folder or default_folder()
    if not (folder.expanduser() / MARK).is_file():
        raise InputError(f"there is no store at {str(folder)!r}: name its folder with --store")
    return Store(folder)


def store_commands(**options: Any) -> App:
    """The commands that look after a store."""
    pruned = example("store prune", "--days 30")
    app = App(
        name="store", help="List, measure and prune the store of finished steps.", help_epilogue=pruned, **options
    )

    @app.command(name="list", help_epilogue=example("store list", "--store my-store"))
    def listing(*, store: StoreFolder = None) -> None:
        """Every finished step, the one used last first."""
        from icl_circuits.viz import Table

        opened = _opened(store)
        rows = [
            (
                step.step, step.model, step.data, f"{step.cost.seconds:.1f}", f"{step.cost.forwards:,}",
                f"{step.size:,}", f"{datetime.fromtimestamp(step.used):%Y-%m-%d %H:%M}",
            )
            for step in opened.listing()
        ]  # fmt: skip
        columns = ("step", "model", "data", "seconds", "forwards", "bytes", "last used")
        console().print(rich_table(Table(columns, tuple(rows)), str(opened.folder)))

    @app.command(help_epilogue=example("store size", "--store my-store"))
    def size(*, store: StoreFolder = None) -> None:
        """How many steps the store holds, and how many bytes."""
        opened = _opened(store)
        say(f"{len(opened.listing())} steps, {opened.size():,} bytes in {opened.folder}")

    @app.command(help_epilogue=pruned)
    def prune(
        *,
        store: StoreFolder = None,
        days: Annotated[float, Parameter(help="Remove steps that were not used for so many days; 0: all.")] = 30.0,
    ) -> None:
        """Remove steps that were not used for some time."""
        n, freed = _opened(store).prune(unused_days=days)
        say(f"Removed {n} steps, {freed:,} bytes.")

    return app
