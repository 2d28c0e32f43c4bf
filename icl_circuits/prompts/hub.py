"""Data sets of the Hugging Face Hub, and local folders that are laid out as they are."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import pandas as pd

from icl_circuits.errors import InputError
from icl_circuits.prompts.files import path_of

HUB_PREFIX = "hf:"


@runtime_checkable
class HubDataset(Protocol):
    """A `datasets.Dataset` that you have, known by what it can do."""

    features: Any
    """What each column holds; class numbers come with their names."""

    def to_pandas(self) -> Any:
        """The rows as a data frame."""
        ...


class HubName(NamedTuple):
    """`NAME/CONFIG@SPLIT`, taken apart."""

    path: str
    config: str | None
    split: str


def read_hub(given: str) -> pd.DataFrame:
    """The rows of a Hub data set, its class numbers as names.

    Args:
        given: `NAME`, `NAME/CONFIG`, `NAME@SPLIT` or `NAME/CONFIG@SPLIT`. A name is `owner/name`, a name without owner
            (`glue/sst2` is its configuration), or a local folder; the split is `train` by default.

    Raises:
        InputError: no such data set, configuration or split, or no network; it says which there are.
    """
    what = f"data {HUB_PREFIX + given!r}"
    if importlib.util.find_spec("datasets") is None:
        raise InputError(f"{what} needs the datasets package: run `pip install 'icl_circuits[data]'`")
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    name = _taken_apart(given, what)
    try:
        try:
            dataset = load_dataset(name.path, name.config, split=name.split)
        except DatasetNotFoundError:
            path, _, config = name.path.partition("/")
            if name.config or not config or "/" in config:
                raise
            dataset = load_dataset(path, config, split=name.split)  # data of no owner: glue/sst2
    except Exception as error:  # the library and its clients raise many kinds
        raise InputError(f"{what} cannot be loaded: {_cause(name, error)}") from error
    return named_classes(dataset)


def named_classes(dataset: HubDataset) -> pd.DataFrame:
    """The rows of a `datasets.Dataset`, its class numbers as names."""
    from datasets import ClassLabel

    frame: pd.DataFrame = dataset.to_pandas()
    for column, feature in dataset.features.items():
        if isinstance(feature, ClassLabel):
            names = dict(enumerate(feature.names))
            frame[column] = [names.get(value) for value in frame[column]]  # -1 stands for no label
    return frame


def _taken_apart(given: str, what: str) -> HubName:
    whole, at, split = given.rpartition("@")
    whole, split = (whole, split) if at else (split, "train")
    if not split or not whole or "\0" in given:
        raise InputError(f"{what}: give {HUB_PREFIX}NAME/CONFIG@SPLIT, of which CONFIG and SPLIT may be left out")
    for folder, name_split in ((path_of(given), "train"), (path_of(whole), split)):
        if folder.is_dir():
            return HubName(str(folder), None, name_split)
    folder = path_of(whole)
    if "/" in whole and _names_configurations(folder.parent / "README.md"):
        return HubName(str(folder.parent), folder.name, split)
    if whole.startswith((".", "/", "~")) or whole.count("/") > 2:
        raise InputError(f"{what}: folder {whole!r} does not exist: check the path")
    path, _, config = whole.rpartition("/")
    return HubName(path, config, split) if "/" in path else HubName(whole, None, split)


def _names_configurations(card: Path) -> bool:
    """Whether a file is a data set's card with configurations."""
    return card.is_file() and "config_name:" in card.read_text(encoding="utf-8", errors="replace")


def _cause(name: HubName, error: Exception) -> str:
    """What went wrong, and the way out of it."""
    from datasets import get_dataset_config_names, get_dataset_split_names
    from datasets.exceptions import DatasetNotFoundError

    said = " ".join(str(error).split())[:300]
    if isinstance(error, DatasetNotFoundError):
        return f"{error} Check the name, owner and all; a configuration follows it, as in {HUB_PREFIX}owner/name/CONFIG"
    if isinstance(error, ConnectionError):
        return f"the Hub cannot be reached and no folder {name.path!r} is here: check the network, or the folder's path"
    if isinstance(error, ValueError):
        configs = _names(get_dataset_config_names, name.path)
        if configs and name.config not in (configs if name.config or len(configs) > 1 else [None]):
            return f"its configurations are {', '.join(configs)}: name one, as in {HUB_PREFIX}{name.path}/{configs[0]}"
        splits = _names(get_dataset_split_names, name.path, name.config)
        if splits and name.split not in splits:
            return f"it has no split {name.split!r}, but {', '.join(splits)}: name one, as in ...@{splits[0]}"
    return f"{type(error).__name__}: {said or 'no more is known'}; check the name {name.path!r} and what is there"


def _names(ask: Callable[..., list[str]], *of: str | None) -> list[str]:
    """What the library knows, or none where it fails at that too."""
    try:
        return ask(*of)
    except Exception:
        return []
