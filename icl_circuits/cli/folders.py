"""The options of every command that writes a folder."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

Out = Annotated[Path, Parameter(help="Folder to write.")]
Force = Annotated[bool, Parameter(help="Replace what this command wrote there. Other files stay.", show_default=False)]
