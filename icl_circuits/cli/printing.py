"""What commands print: lines and tables, without markup or control characters of the data's."""

from typing import TYPE_CHECKING

from icl_circuits.characters import visible

if TYPE_CHECKING:
    import rich.console
    import rich.table

    import icl_circuits.viz


def console() -> "rich.console.Console":
    """Standard output."""
    from rich.console import Console

    return Console()


def say(line: str) -> None:
    """One line, with no markup in it."""
    console().print(visible(line), soft_wrap=True, highlight=False, markup=False)


def rich_table(table: "icl_circuits.viz.Table", title: str) -> "rich.table.Table":
    """A table as a terminal shows it."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    rich = RichTable(title=Text(visible(title)), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        rich.add_column(Text(visible(column)))
    for row in table.rows:
        rich.add_row(*(Text(visible(cell)) for cell in row))
    return rich
