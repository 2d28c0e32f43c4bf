"""Options from a TOML file, in place of those on the command line."""

import sys
from pathlib import Path
from typing import Annotated, Any, get_args

from cyclopts import App, ArgumentCollection, Parameter, Token

from icl_circuits.cli.folders import OUTPUT
from icl_circuits.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OPTION = "--config"
Config = Annotated[
    Path | None,
    Parameter(help="A .toml file of options, such as heads = 4. The command line overrides it.", group=OUTPUT),
]


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """What a TOML file says.

    Raises:
        InputError: a file that cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{what} {str(path)!r} cannot be read ({error.strerror}): give a .toml file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} {str(path)!r} is not TOML ({error}): correct it there") from error


def text_of(path: Path, name: str, value: Any) -> str:
    """The value of an option in a file, as the command line has it.

    Raises:
        InputError: a value that is neither text, a number, true or false, nor a list of texts and whole numbers.
    """
    if isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise InputError(f"{str(path)!r} gives {name} the value {value!r}: give a text, a number, or a list of them")
    return str(value)


def from_file(_: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Give a command's options the values of the file that `--config` names, unless the command line has them.

    Raises:
        InputError: what `read_toml` and `text_of` raise, an option that the command has not, or a value of another
            kind than the option takes.
    """
    options = {argument.name: argument for argument in arguments}
    asked = options.pop(OPTION, None)
    if asked is None or not asked.tokens:
        return
    path = Path(asked.tokens[-1].value)
    for name, value in read_toml(path, "options file").items():
        option = options.get("--" + name.replace("_", "-"))
        if option is None:
            raise InputError(f"{str(path)!r} has {name!r}, but {commands[-1]!r} has no such option: see its --help")
        text = text_of(path, name, value)
        kinds = get_args(option.hint) or (option.hint,)
        if (bool in kinds) != isinstance(value, bool) or (int in kinds and isinstance(value, float)):
            raise InputError(f"{str(path)!r} gives {name} the value {text}, which {option.name} does not take")
        if not option.tokens:
            option.append(Token(keyword=option.name, value=text, source=str(path)))
