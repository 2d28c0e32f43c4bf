"""Forward passes under hooks by the engine's equations: they restart from a base run where hooks first change it.

Captures and interventions are hooks on single layers. They are shown each activation as the model's own hook points
carry it, so they compute what they compute in the model. No layer below the first change is run again.
"""

from contextlib import suppress

import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.models import LensModel, NotAlgebraError, ReadSite, require_causal
from icl_circuits.patching.base_run import run_base
from icl_circuits.patching.kept import kept_run
from icl_circuits.patching.shown import LayerHooks, by_layer, through
from icl_circuits.patching.step import BaseRun, advance
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import Capture, Hooked, Moves, answer_logits, hooks_of

READERS = (Capture, Moves)
"""What changes nothing."""


@torch.no_grad()
def run_hooked(model: LensModel, batch: TokenBatch, *parts: Hooked) -> Float[Tensor, "batch d_vocab"]:
    """The logits at the answer positions, under interventions if any, and while captures read: `answer_logits`, faster.

    What the equations do not show, or a model that they do not hold for, takes a plain forward pass. Captures see the
    model's activations at the prompts' own positions; at the padding behind them, little is computed.

    Raises:
        InputError: NaN logits, and whatever `intervene` raises.
        Unfit: a model that sees what comes later.
    """
    require_causal(model)
    hooks = by_layer(model, hooks_of(model, parts))
    changes = by_layer(model, hooks_of(model, [part for part in parts if not isinstance(part, READERS)]))
    if hooks is None or changes is None:
        return answer_logits(model, batch, *parts)
    first = next(iter(changes), model.cfg.n_layers)
    below = {layer: part for layer, part in hooks.items() if layer < first}
    try:
        base = kept_run(model, batch)
        if base is None:
            base = run_base(model, batch, hooks=below)
        else:
            for layer, part in below.items():
                _read(base, layer, part)
    except NotAlgebraError:
        return answer_logits(model, batch, *parts)
    if first == model.cfg.n_layers:
        return base.logits
    x = base.resid_pre[first][None]
    last, everywhere = model.cfg.n_layers - 1, base.everywhere
    for layer in range(first, model.cfg.n_layers):
        out = base.at_answer if layer == last and last not in hooks else everywhere
        x = advance(base, layer, x, everywhere, out, see=through(hooks[layer]) if layer in hooks else None)
    at_answer = x[0, :, 0] if last not in hooks else x[0, torch.arange(len(batch), device=x.device), batch.last]
    logits = base.readout.logits(at_answer)
    return answer_logits(model, batch, *parts) if torch.isnan(logits).any() else logits


class _SeenError(Exception):
    """Ends a layer whose hooks have seen all that they read."""


def _read(base: BaseRun, layer: int, hooks: LayerHooks) -> None:
    """Make one layer of the base run again, as far as its hooks read, which change nothing."""
    show, waiting = through(hooks), set(hooks)

    def see(site: ReadSite, activation: Tensor) -> None:
        show(site, activation)
        waiting.discard(site)
        if not waiting:
            raise _SeenError

    with suppress(_SeenError):
        advance(base, layer, base.resid_pre[layer][None], base.everywhere, base.everywhere, see=see)
