"""The steps of a run: each is taken from the store, or computed and kept there."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from icl_circuits.costs import Cost, tallied
from icl_circuits.models import LensModel
from icl_circuits.patching import keeping_runs
from icl_circuits.progress import step as shown_step, taken
from icl_circuits.store import Kept, Store, code_version, digest, packed, unpacked

T = TypeVar("T")


@dataclass(frozen=True)
class Steps:
    """Computes the steps of one run, each once."""

    on: Any
    """Everything that the numbers of the run depend on, besides the code: the model's identity, and what was prepared.
    """
    model: LensModel | None = None
    """Whose base runs the analyses of one step share; a step shares none with others, so that it never hangs on them.
    """
    data: str = ""
    """Its name, for people."""
    store: Store | None = None
    """None: nothing is kept."""
    costs: dict[str, Cost] = field(default_factory=dict)
    """Of each step so far, when it was computed."""
    shares_runs: bool = True
    """Whether analyses share base runs: of too many prompts, each run would be gone before it is asked for again."""

    def __call__(self, step: str, compute: Callable[[], T], on: Any = None) -> T:
        """The result of a step, computed unless the store has it.

        Args:
            step: its name, the only one in the run.
            compute: gives the result, of frozen dataclasses, arrays, tables and plain values.
            on: what its numbers depend on, where that is not what the run's depend on.

        Raises:
            TypeError: a result that cannot be kept.
        """
        if self.store is None:
            return self._computed(step, compute)
        depends = self.digest if on is None else digest(on)
        key = digest((code_version(), code_version(compute.__module__), step, depends))
        kept = self.store.get(key)
        if kept is not None:
            return self._taken(step, kept)
        with self.store.computing(key, step):
            kept = self.store.get(key)  # another run may have computed it meanwhile
            if kept is not None:
                return self._taken(step, kept)
            value = self._computed(step, compute)
            self.store.put(key, value, self.costs[step], {"step": step, "model": self._name, "data": self.data})
            return value

    @cached_property
    def digest(self) -> str:
        """Of everything that the numbers of the run depend on: worked out once, not for each step."""
        return digest(self.on)

    def _taken(self, step: str, kept: Kept) -> Any:
        taken(step)
        self.costs[step] = kept.cost
        return kept.value

    def _computed(self, step: str, compute: Callable[[], T]) -> T:
        with shown_step(step), tallied() as tally, self._keeping():
            data = packed(compute())
        self.costs[step] = Cost(tally.seconds, tally.forwards, len(data))
        value: T = unpacked(data)  # as the store would give it, to the order of numbers in memory
        return value

    def _keeping(self) -> AbstractContextManager[None]:
        return keeping_runs(self.model) if self.model is not None and self.shares_runs else nullcontext()

    @property
    def _name(self) -> str:
        return "" if self.model is None else str(self.model.cfg.model_name)
