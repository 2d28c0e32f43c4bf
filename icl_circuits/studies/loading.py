"""The model of a job: loaded when it is first needed, and known by its files where an earlier run has loaded it."""

from functools import cached_property
from typing import Any

import torch

from icl_circuits.errors import InputError
from icl_circuits.jobs import ModelSpec
from icl_circuits.models import LensModel, default_device, files_of, identity, load_model, note_weights
from icl_circuits.store import Store, code_version, digest


def load_spec(spec: ModelSpec) -> LensModel:
    """The model of a job.

    Raises:
        InputError: whatever `load_model` raises.
    """
    return load_model(
        spec.model,
        backend=spec.backend,
        revision=spec.revision,
        checkpoint=spec.checkpoint,
        dtype=getattr(torch, spec.dtype),
        device=spec.device,
        n_ctx=spec.n_ctx,
    )


class Loaded:
    """The model that a job asks for, and what its numbers depend on."""

    def __init__(self, spec: ModelSpec, store: Store | None = None) -> None:
        """Nothing is read yet. The store remembers models by the paths, sizes and times of their files."""
        self.spec, self.store = spec, store

    @cached_property
    def model(self) -> LensModel:
        """The model itself. Raises what `load_spec` raises."""
        before, known = self._files, self._remembered
        model = load_spec(self.spec)
        if before is not None and files_of(self.spec.model, self.spec.checkpoint) != before:
            raise InputError(f"the files of model {self.spec.model!r} changed while they were read: run it again")
        if known is not None:
            note_weights(model, known["weights"])
        elif self.store is not None and self._files is not None:
            self.store.remember(self._key, identity(model))
        return model

    @cached_property
    def identity(self) -> dict[str, str]:
        """As `identity` gives it; a model that is remembered is not loaded for it."""
        return self._remembered or identity(self.model)

    @cached_property
    def _remembered(self) -> dict[str, Any] | None:
        found = None if self.store is None or self._files is None else self.store.remembered(self._key)
        return found if isinstance(found, dict) else None

    @cached_property
    def _files(self) -> list[tuple[str, int, int]] | None:
        return files_of(self.spec.model, self.spec.checkpoint)

    @property
    def _key(self) -> str:
        spec = self.spec
        device = spec.device or str(default_device())
        return digest((self._files, spec.backend, spec.revision, spec.dtype, device, spec.n_ctx, code_version()))
