"""Draws the pictures of these pages, and writes the gallery: every figure and page, and the command that makes it.

    python docs/pictures.py FOLDER

FOLDER holds what the commands of `MADE_BY` left, each under its name. Pages are
photographed in a headless Chromium.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import fill

import icl_circuits as icl
from icl_circuits.prompts import reverse_labels
from icl_circuits.viz import sweep_map
from icl_circuits.viz.look import svg

HERE = Path(__file__).parent
PICTURES = HERE / "pictures"
MADE_BY = {
    "report": "icl-circuits report",
    "circuit": "icl-circuits circuit --model icl-small --heads 4",
    "subvalues": "icl-circuits subvalues --per-type 3",
    "relations": "icl-circuits relations --model icl-small --heads 2",
    "development": "icl-circuits development",
}
PAGES = {"report": ("report.html",), "circuit": ("circuit.html",), "subvalues": ("prompts.html",)}
"""The pages of a folder that are photographed."""
CHROMIUM = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,900")


def tutorial() -> None:
    """The heat map of the tutorial."""
    model = icl.load_model("icl-small")
    prompts = icl.sample_prompts(icl.load_rows("word-categories"), 32, shots=4, seed=1)
    batch, twin = icl.encode(model, prompts), icl.encode(model, [reverse_labels(prompt) for prompt in prompts])
    states = icl.sweep(model, batch, "resid_pre", positions="labels", each=True, replacement=icl.Interchange(twin))
    (PICTURES / "tutorial_positions.svg").write_bytes(svg(sweep_map(states, "demonstration")))


def figures(folder: Path) -> list[str]:
    """Copy the figures of a folder; gives the gallery's lines, the caption's first sentence under each."""
    lines = []
    for file in sorted((folder / "figures").glob("*.svg")):
        name = f"{folder.name}_{file.name}"
        shutil.copyfile(file, PICTURES / name)
        caption = file.with_suffix(".txt").read_text(encoding="utf-8").split(". ")[0].strip().rstrip(".")
        lines += [
            f"### {file.stem.replace('_', ' ')}",
            "",
            fill(f"{caption}.", 120),
            "",
            f"![{file.stem}](pictures/{name})",
            "",
        ]
    return lines


def photograph(page: Path, name: str) -> list[str]:
    """A picture of a page's first screen; gives the gallery's lines."""
    target = PICTURES / f"{name}.png"
    subprocess.run([*CHROMIUM, f"--screenshot={target}", page.as_uri()], check=True, capture_output=True)
    return [f"### {page.name}", "", f"![The first screen of {page.name}](pictures/{target.name})", ""]


def main(made: Path) -> None:
    """Draw everything."""
    PICTURES.mkdir(exist_ok=True)
    for old in PICTURES.iterdir():
        old.unlink()
    tutorial()
    lines = [
        "# Gallery",
        "",
        "Every figure and page, and the command that makes it. Figures come as PDF, PNG and SVG, a column wide, with",
        "their captions ([figures for a paper](paper-figures.md)). `docs/pictures.py` drew what is here.",
        "",
    ]
    for name, command in MADE_BY.items():
        folder = made / name
        lines += [f"## `{command}`", ""]
        for page in PAGES.get(name, ()):
            lines += photograph((folder / page).resolve(), f"{name}_page")
        lines += figures(folder)
    shutil.copyfile(made / "report" / "figures" / "accuracy.svg", PICTURES / "accuracy.svg")
    shutil.copyfile(made / "report" / "circuit.svg", PICTURES / "circuit.svg")
    (HERE / "gallery.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
