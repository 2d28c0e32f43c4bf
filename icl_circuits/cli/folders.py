"""What commands share: the options of all that write a folder, and how an example ends their help."""

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

OUTPUT = Group("Output", sort_key=4)
"""The group of these options in help texts, behind those of the job."""
Out = Annotated[Path, Parameter(help="Folder to write.", group=OUTPUT)]
Force = Annotated[
    bool,
    Parameter(help="Replace what this command wrote there. Other files stay.", show_default=False, group=OUTPUT),
]


def example(command: str, options: str) -> str:
    """The end of a command's help."""
    return f"Example: icl-circuits {command} {options}".strip()
