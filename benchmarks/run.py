"""The sweep engine side by side with TransformerLens's own patching functions, in one process.

    python benchmarks/run.py [--quick] [--only sweeps] [--shape gpt2-small] [--device cpu] [--dtype float32]

prints tables and writes `benchmarks/results.json`. `subvalues.py` measures scores of neurons (`--only subvalues`),
`relations.py` the relation index (`--only relations`).

TransformerLens runs one forward pass a cell, so where a grid has many cells its loop is timed on a sample of them,
spread evenly, and scaled up: the table says how many. Each of our sweeps is timed whole, its base run included, after a
first sweep in which the engine checks its equations on the model; the better of two runs counts, where one takes less
than 20 s.
"""

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import relations
import subvalues
import torch
from measure import timed, with_peak
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig, patching
from transformer_lens.tools.analysis import direct_path_patching

import icl_circuits as icl
from icl_circuits.prompts import PromptBatch

RESULTS = Path(__file__).parent / "results.json"
PARTS = ("sweeps", "subvalues", "relations")

SHAPES: dict[str, dict[str, Any]] = {
    "gpt2-small": {
        "n_layers": 12, "n_heads": 12, "d_model": 768, "d_head": 64, "d_mlp": 3072, "d_vocab": 50257, "n_ctx": 1024,
        "act_fn": "gelu_new", "normalization_type": "LN",
    },
    "gpt-j": {
        "n_layers": 28, "n_heads": 16, "d_model": 4096, "d_head": 256, "d_mlp": 16384, "d_vocab": 50400, "n_ctx": 2048,
        "act_fn": "gelu_new", "normalization_type": "LN", "positional_embedding_type": "rotary", "rotary_dim": 64,
        "rotary_adjacent_pairs": True, "parallel_attn_mlp": True,
    },
    "llama-7b": {
        "n_layers": 32, "n_heads": 32, "d_model": 4096, "d_head": 128, "d_mlp": 11008, "d_vocab": 32000, "n_ctx": 2048,
        "act_fn": "silu", "normalization_type": "RMS", "positional_embedding_type": "rotary", "rotary_dim": 128,
        "gated_mlp": True, "final_rms": True,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One comparison."""

    sweep: str
    model: str
    tokens: str
    """Prompts x positions."""
    seconds: float
    baseline_seconds: float
    """TransformerLens's loop over all cells, scaled up from those timed."""
    ratio: float
    forwards: float
    """Our time in plain forward passes with logits."""
    max_error: float
    """Largest difference of a prompt's logit difference from TransformerLens's, over the cells both computed. In half
    precision that is the rounding of both."""
    logit_scale: float
    """Largest absolute answer-position logit."""
    peak_bytes: int
    """How much the process (on a GPU: its allocations) grew during our sweep."""
    cells: int
    cells_timed: int
    """How many cells TransformerLens's loop was timed on."""


class PerPrompt:
    """A metric for TransformerLens, which wants one number: it keeps each prompt's."""

    def __init__(self, batch: PromptBatch) -> None:
        self.batch, self.seen = batch, []

    def __call__(self, logits: Tensor) -> Tensor:
        batch = self.batch
        at_last = logits[torch.arange(len(batch), device=logits.device), batch.last][:, batch.label_tokens].float()
        right = at_last.gather(1, batch.gold[:, None])[:, 0]
        other = at_last.gather(1, 1 - batch.gold[:, None])[:, 0]
        self.seen.append((right - other).cpu())
        return (right - other).mean()


def random_model(shape: str, device: str, dtype: torch.dtype) -> Any:
    """A HookedTransformer of a known shape with random weights."""
    torch.manual_seed(0)
    config = HookedTransformerConfig(**SHAPES[shape], device=device, dtype=dtype, model_name=shape, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return HookedTransformer(config).eval().requires_grad_(False)


def random_batch(model: Any, prompts: int, positions: int, seed: int) -> PromptBatch:
    """Random tokens in the shape of prompts."""
    generator = torch.Generator().manual_seed(seed)
    like = icl.sample_prompts(icl.load_rows("word-categories"), prompts, shots=2, seed=0)
    device = model.unembed.W_U.device
    tokens = torch.randint(0, model.cfg.d_vocab, (prompts, positions), generator=generator)
    labels = torch.linspace(3, positions - 4, 4).long()
    gold, label_tokens = (torch.arange(prompts) % 2).to(device), torch.tensor([100, 200], device=device)
    return PromptBatch(
        tokens=tokens.to(device),
        last=torch.full((prompts,), positions - 1, device=device),
        label_positions=labels.expand(prompts, -1).to(device),
        demo_labels=torch.tensor([0, 1, 0, 1]).expand(prompts, -1).to(device),
        gold=gold,
        label_tokens=label_tokens,
        label_words=((100,), (200,)),
        label_score="first",
        target=label_tokens[gold],
        prompts=like,
        texts=("",) * prompts,
        separator=" ",
        n_prepended=0,
    )


def spread(cells: Sequence[tuple[int, ...]], n: int) -> list[tuple[int, ...]]:
    """`n` of the cells, evenly spread."""
    return [cells[int((i + 0.5) * len(cells) / n)] for i in range(min(n, len(cells)))]


class Bench:
    """One model and batch, and the rows measured on them."""

    def __init__(self, name: str, model: Any, batch: PromptBatch, sample: int) -> None:
        self.name, self.model, self.batch, self.sample = name, model, batch, sample
        self.rows: list[Row] = []
        icl.run_each(model, batch, [])  # the engine checks its equations on the model once
        with torch.no_grad():
            model(batch.tokens[:1])
            self.forward_seconds = min(timed(lambda: model(batch.tokens))[0] for _ in range(3))

    def add(
        self, name: str, run: Callable[[], Any], cells: Sequence[tuple[int, ...]], loop: Callable[..., Any]
    ) -> None:
        """Time our sweep and TransformerLens's loop over a sample of the cells; `loop` takes cells and a metric."""
        chosen = spread(cells, self.sample)
        metric = PerPrompt(self.batch)
        with torch.no_grad():
            loop_seconds, _ = timed(lambda: loop(chosen, metric))
        seconds, found, peak = with_peak(run)
        again, _ = timed(run) if seconds < 20 else (seconds, None)
        seconds = min(seconds, again)
        ours = dict(zip(places(found), torch.as_tensor(found.values), strict=True))
        errors = [(ours[place] - values).abs().max().item() for place, values in zip(chosen, metric.seen, strict=True)]
        baseline = loop_seconds / len(chosen) * len(cells)
        row = Row(
            sweep=name,
            model=self.name,
            tokens=f"{self.batch.tokens.shape[0]} x {self.batch.tokens.shape[1]}",
            seconds=seconds,
            baseline_seconds=baseline,
            ratio=baseline / seconds,
            forwards=seconds / self.forward_seconds,
            max_error=max(errors),
            logit_scale=found.logit_scale,
            peak_bytes=peak,
            cells=len(cells),
            cells_timed=len(chosen),
        )
        self.rows.append(row)
        print(f"  {row.model}, {row.tokens}, {row.sweep}: {row.ratio:.0f} x", flush=True)

    # --- the sweeps ---------------------------------------------------------------------------------------------------

    def zero_last(self) -> None:
        """Zero every head at the last position, logit difference."""
        cfg, tokens = self.model.cfg, self.batch.tokens
        cells = [(layer, head) for layer in range(cfg.n_layers) for head in range(cfg.n_heads)]
        rows = torch.arange(len(self.batch), device=tokens.device)

        def loop(chosen: Sequence[tuple[int, ...]], metric: PerPrompt) -> None:
            zero = torch.zeros(*tokens.shape, cfg.n_heads, cfg.d_head, device=tokens.device, dtype=self.model.W_E.dtype)
            zeros = {f"blocks.{layer}.attn.hook_z": zero for layer in range(cfg.n_layers)}

            def setter(z: Tensor, index: Sequence[int], clean: Tensor) -> Tensor:
                _, head = index
                z[rows, self.batch.last, head] = clean[rows, self.batch.last, head]
                return z

            self._generic(chosen, ("layer", "head"), zeros, metric, setter, "z")

        self.add("zero each head, last position", lambda: icl.sweep(self.model, self.batch, "z"), cells, loop)

    def patch_heads(self, source: PromptBatch) -> None:
        """Patch every head at all positions from another run."""
        cfg = self.model.cfg
        cells = [(layer, head) for layer in range(cfg.n_layers) for head in range(cfg.n_heads)]
        cache = self._cache(source, "hook_z")

        def loop(chosen: Sequence[tuple[int, ...]], metric: PerPrompt) -> None:
            self._generic(chosen, ("layer", "head"), cache, metric, patching.layer_head_vector_patch_setter, "z")

        options: dict[str, Any] = {"positions": "all", "replacement": icl.Interchange(source)}
        run = lambda: icl.sweep(self.model, self.batch, "z", **options)  # noqa: E731
        self.add("patch each head, all positions", run, cells, loop)

    def patch_resid_pre(self, source: PromptBatch) -> None:
        """Patch resid_pre at every layer and position."""
        cfg, n_pos = self.model.cfg, self.batch.tokens.shape[1]
        cells = [(layer, pos) for layer in range(cfg.n_layers) for pos in range(n_pos)]
        cache = self._cache(source, "hook_resid_pre")

        def loop(chosen: Sequence[tuple[int, ...]], metric: PerPrompt) -> None:
            self._generic(chosen, ("layer", "pos"), cache, metric, patching.layer_pos_patch_setter, "resid_pre")

        options: dict[str, Any] = {"positions": "all", "each": True, "replacement": icl.Interchange(source)}
        run = lambda: icl.sweep(self.model, self.batch, "resid_pre", **options)  # noqa: E731
        self.add("patch resid_pre, each (layer, position)", run, cells, loop)

    def query_edges(self, source: PromptBatch) -> None:
        """All direct (sender head -> receiver head) query edges at the last position."""
        model, cfg, batch = self.model, self.model.cfg, self.batch
        heads = [(layer, head) for layer in range(cfg.n_layers) for head in range(cfg.n_heads)]
        cells = [(*sender, *receiver) for receiver in heads for sender in heads if sender[0] < receiver[0]]
        rows = torch.arange(len(batch), device=batch.tokens.device)
        caches = {"clean": self._cache(source, "hook_z"), "base": self._cache(batch, "hook_z", "hook_resid_pre")}

        def loop(chosen: Sequence[tuple[int, ...]], metric: PerPrompt) -> None:
            for layer, head, to_layer, to_head in chosen:  # one forward pass an edge, the receiver's q computed exactly
                z = f"blocks.{layer}.attn.hook_z"
                change = (caches["clean"][z] - caches["base"][z])[rows, batch.last, head] @ model.W_O[layer, head]
                state = caches["base"][f"blocks.{to_layer}.hook_resid_pre"][rows, batch.last] + change
                attn = model.blocks[to_layer].attn
                new = model.blocks[to_layer].ln1(state[:, None])[:, 0] @ attn.W_Q[to_head] + attn.b_Q[to_head]

                def put(q: Tensor, hook: Any, new: Tensor = new, to_head: int = to_head) -> Tensor:
                    q[rows, batch.last, to_head] = new
                    return q

                metric(model.run_with_hooks(batch.tokens, fwd_hooks=[(f"blocks.{to_layer}.attn.hook_q", put)]))

        run = lambda: icl.path_patch(model, batch, replacement=icl.Interchange(source))  # noqa: E731
        self.add("all head -> head q edges, last position", run, cells, loop)

    def direct_path_of_transformer_lens(self, source: PromptBatch) -> None:
        """How long TransformerLens's own path patching takes for an edge (3.9 linearises the norm)."""
        metric = PerPrompt(self.batch)
        caches = [self._cache(b, "hook_z", "ln1.hook_scale") for b in (source, self.batch)]
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            layer = self.model.cfg.n_layers - 2
            seconds, _ = timed(
                lambda: direct_path_patching.get_act_patch_direct_path(
                    self.model, self.batch.tokens, *caches, metric, layer, 0, verbose=False
                )
            )
        print(f"  its get_act_patch_direct_path: {seconds / len(metric.seen):.2f} s an edge", flush=True)

    def _generic(
        self, cells: Any, axes: Sequence[str], cache: Any, metric: PerPrompt, setter: Any, activation: str
    ) -> None:
        patching.generic_activation_patch(
            self.model,
            self.batch.tokens,
            cache,
            metric,
            setter,
            activation,
            index_df=pd.DataFrame(cells, columns=list(axes)),
        )

    def _cache(self, batch: PromptBatch, *ends: str) -> Any:
        with torch.no_grad():
            _, cache = self.model.run_with_cache(
                batch.tokens, names_filter=lambda name: name.endswith(ends), return_type=None
            )
        return cache


def places(found: Any) -> list[tuple[int, ...]]:
    """The cells or edges of a result, as plain tuples."""
    if hasattr(found, "cells"):
        return [tuple(part for part in cell if part is not None) for cell in found.cells]
    return [(*edge.sender, *edge.receiver) for edge in found.edges]


def smollm2(prompts: int, dtype: torch.dtype = torch.float32) -> tuple[Any, PromptBatch, PromptBatch]:
    """The real model, word prompts, and their label-reversed twins."""
    from icl_circuits.prompts import reverse_labels

    model = icl.load_model("smollm2-135m", backend="hooked", dtype=dtype)
    sampled = icl.sample_prompts(icl.load_rows("word-categories"), prompts, shots=4, seed=0)
    return model, icl.encode(model, sampled), icl.encode(model, [reverse_labels(prompt) for prompt in sampled])


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    table = Table(title="icl_circuits against TransformerLens's loop")
    for name in ("sweep", "model", "prompts x tokens", "cells (timed)", "ours, s", "loop, s", "ratio", "forwards"):
        table.add_column(name, justify="left" if name in ("sweep", "model") else "right")
    table.add_column("max error / logit scale", justify="right")
    table.add_column("peak, MB", justify="right")
    for row in rows:
        table.add_row(
            row.sweep,
            row.model,
            row.tokens,
            f"{row.cells} ({row.cells_timed})",
            f"{row.seconds:.2f}",
            f"{row.baseline_seconds:.0f}",
            f"{row.ratio:.0f} x" if row.ratio >= 10 else f"{row.ratio:.1f} x",
            f"{row.forwards:.2f}",
            f"{row.max_error:.1e} / {row.logit_scale:.1f}",
            f"{row.peak_bytes / 1e6:.0f}",
        )
    Console(width=180).print(table)


def main() -> None:
    """Run everything, or what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="gpt2-small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--quick", action="store_true", help="the cheapest comparisons alone, on short prompts")
    parser.add_argument("--only", choices=PARTS, help="the other numbers stay as they are stored")
    parser.add_argument("--out", type=Path, help="default: results.json beside this file, nothing with --quick")
    options = parser.parse_args()
    out = options.out or (None if options.quick else RESULTS)
    stored = json.loads(out.read_text()) if out is not None and out.exists() else {}
    on_gpu = options.device.startswith("cuda")
    machine = {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads",
        "dtype": options.dtype,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    parts = [options.only] if options.only else PARTS[:1] if on_gpu else PARTS
    if "sweeps" in parts:
        rows = sweeps(options)
        show(rows)
        stored |= {"machine": machine, "rows": [asdict(row) for row in rows]}
    model = random_model(options.shape, "cpu", torch.float32) if options.quick else None
    if "subvalues" in parts:
        compared = subvalues.real() if model is None else subvalues.quick(options.shape, model)
        grown = [] if options.quick else subvalues.growth()
        subvalues.show(compared, grown)
        of_subvalues = {"rows": [asdict(row) for row in compared], "growth": [asdict(row) for row in grown]}
        stored["subvalues"] = {"machine": machine | {"dtype": "float32"}, **of_subvalues}
    if "relations" in parts:
        indexed = relations.real() if model is None else relations.quick(options.shape, model)
        relations.show(indexed)
        stored["relations"] = {"machine": machine | {"dtype": "float32"}, "rows": [asdict(row) for row in indexed]}
    if out is not None:
        out.write_text(json.dumps(stored, indent=1) + "\n")
    if out == RESULTS and "subvalues" in stored:
        subvalues.fill_page(stored["subvalues"])
    if out == RESULTS and "relations" in stored:
        relations.fill_page(stored["relations"])


def sweeps(options: argparse.Namespace) -> list[Row]:
    """The sweep engine beside TransformerLens."""
    model = random_model(options.shape, options.device, getattr(torch, options.dtype))
    rows: list[Row] = []
    n_pos = 32 if options.quick else 128
    bench = Bench(options.shape, model, random_batch(model, 4, n_pos, seed=1), sample=4 if options.quick else 12)
    source = random_batch(model, 4, n_pos, seed=2)
    bench.zero_last()
    bench.query_edges(source)
    if options.quick:
        return bench.rows
    bench.direct_path_of_transformer_lens(source)
    bench.patch_heads(source)
    bench.patch_resid_pre(source)
    rows += bench.rows
    for n_pos in (64, 256, 512, 1024):
        longer = Bench(options.shape, model, random_batch(model, 4, n_pos, seed=1), sample=3)
        longer.zero_last()
        rows += longer.rows
    if options.device == "cpu":
        real = Bench("SmolLM2-135M", *(loaded := smollm2(16))[:2], sample=6)
        real.zero_last()
        real.query_edges(loaded[2])
        real.patch_heads(loaded[2])
        rows += real.rows
        for dtype in (torch.float32, torch.bfloat16):
            name = f"SmolLM2-135M, {str(dtype).removeprefix('torch.')}"
            more = Bench(name, *smollm2(32, dtype)[:2], sample=6)
            more.zero_last()
            rows += more.rows
    return rows


if __name__ == "__main__":
    main()
