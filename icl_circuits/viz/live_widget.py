"""The widget: the traits that Python and the notebook's page share, and what is run when they change."""

import importlib.resources
from typing import Any

import anywidget
import traitlets

from icl_circuits.errors import InputError, in_one_line


def _file(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


class CircuitWidget(anywidget.AnyWidget):
    """A circuit on one prompt, and the answer without the edges that are cut."""

    _esm = _file("live.js")
    _css = _file("live.css")
    prompts = traitlets.List(traitlets.Unicode()).tag(sync=True)
    metric = traitlets.Unicode().tag(sync=True)
    prompt = traitlets.Int().tag(sync=True)
    """Which prompt is shown: the page sets it, or you do."""
    cut = traitlets.List(traitlets.Int()).tag(sync=True)
    """The numbers of the edges that are cut: the page sets them, or you do."""
    drawn = traitlets.Dict().tag(sync=True)
    """The drawing of the prompt and its edges."""
    answer = traitlets.Dict().tag(sync=True)
    """What the model answered last: for which prompt and cut edges, its numbers, or `error` in one line."""

    def __init__(self, runs: Any) -> None:
        self._runs = runs
        super().__init__(prompts=runs.prompts, metric=runs.words, drawn=runs.drawn(0, []), answer=runs.answer(0, []))
        self.observe(self._run, names=["prompt", "cut"])

    def _run(self, change: Any) -> None:
        """Draw a new prompt, and run the model. Nobody sees what an observer raises, so the widget says it."""
        prompt, cut = self.prompt, list(self.cut)
        try:
            if change.name == "prompt" or not set(cut) <= {edge["number"] for edge in self.drawn["edges"]}:
                self.drawn = self._runs.drawn(prompt, cut)
            self.answer = self._runs.answer(prompt, cut)
        except Exception as error:
            said = " ".join(str(error).split()) if isinstance(error, InputError) else in_one_line(error)
            self.answer = {"prompt": prompt, "cut": cut, "error": said}

    def __repr__(self) -> str:
        cut = f"{len(self.cut)} edge{'' if len(self.cut) == 1 else 's'}"
        return f"CircuitWidget: prompt {self.prompt + 1} of {len(self.prompts)}, {self.metric}, {cut} cut"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The widget, and the drawing for where a notebook is shown without Python."""
        bundle = super()._repr_mimebundle_(**kwargs)
        return bundle and ({**bundle[0], "image/svg+xml": self.drawn["svg"]}, *bundle[1:])
