"""Scores of neurons (`icl_circuits.subvalues`) side by side with the algorithm of arXiv 2312.12141's own code.

The plain algorithm adds what a neuron writes to the state, projects the sum onto the whole vocabulary, and takes the
softmax: one projection a neuron and prompt. It does so in stacks of neurons, as the authors' code does. It takes long,
so it scores some layers, spread evenly, and one prompt, and its time is scaled up: `plain_sample` says from what.

    python benchmarks/run.py --only subvalues

measures, prints, stores the numbers in `benchmarks/results.json`, and fills the tables of `docs/performance.md`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from measure import best_of_some, timed, with_peak
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig

import icl_circuits as icl
from icl_circuits.prompts import TokenBatch, load_facts
from icl_circuits.subvalues import Kind, score_neurons, top_neurons

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
LOGITS_AT_ONCE = 1 << 24
"""How many logits the plain algorithm holds at once: as many as ours."""
SHOTS = "The capital of Italy is Rome. The capital of Japan is Tokyo. The capital of Spain is Madrid. "
TIMES = "\u00d7"
GROWTH = {"d_vocab": (8192, 16384, 32768, 65536), "d_mlp": (512, 1024, 2048, 4096), "prompts": (1, 4, 16, 64)}
"""What grows, and the sizes. The first size, of each, is that of the others."""


@dataclass(frozen=True)
class Comparison:
    """One piece of work, done by us and by the plain algorithm."""

    work: str
    model: str
    tokens: str
    """Prompts x positions."""
    neurons: int
    """Of all layers; attention neurons at every source position."""
    seconds: float
    """The forward pass included."""
    beyond_forward: float
    """Seconds without a plain forward pass of the same prompts."""
    plain_seconds: float
    """The forward pass included; the fastest layer of the sample, scaled up."""
    plain_sample: str
    ratio: float
    max_error: float
    """Largest difference of a score from the plain algorithm's, nats, over the neurons that both scored."""
    same_top: str
    """Of our best neurons in the layers that the plain algorithm scored (of all scores: our first 300 there), how many
    are its best."""
    peak_bytes: int | None = None
    """How much a fresh process grew above the loaded model; None where that was not measured."""


@dataclass(frozen=True)
class Growth:
    """How long FFN neurons take in a random model of four layers, d_model 256, forward pass included."""

    grows: str
    d_vocab: int
    neurons: int
    prompts: int
    top_seconds: float
    """`top_neurons`, 100 of each prompt."""
    score_seconds: float
    """`score_neurons`, all of them exactly."""


# --- the plain algorithm ----------------------------------------------------------------------------------------------


def plain_scores(model: Any, batch: TokenBatch, cache: Any, kind: Kind, layer: int) -> Tensor:
    """`log p(w | state + v) - log p(w | state)` of each neuron's v, (neuron, source), under the final norm's scale."""
    last, target = int(batch.last[0]), int(batch.target[0])
    state = cache["resid_pre", layer][0, last]
    if kind == "ffn":
        state = state + cache["attn_out", layer][0, last]
        directions = model.blocks[layer].mlp.W_out
        coefficients = cache["post", layer][0, last][:, None]
    else:
        directions = model.blocks[layer].attn.W_O.flatten(0, 1)
        v = cache["v", layer][0]
        v = v.repeat_interleave(model.cfg.n_heads // v.shape[1], dim=1)  # queries that share a value
        coefficients = torch.einsum("hs,shk->hks", cache["pattern", layer][0, :, last], v).flatten(0, 1)
    scale = cache["ln_final.hook_scale"][0, last]

    def log_probs(vectors: Tensor) -> Tensor:
        if model.cfg.normalization_type.startswith("LN"):
            vectors = vectors - vectors.mean(-1, keepdim=True)
        normed = vectors / scale * getattr(model.ln_final, "w", 1.0)
        return torch.log_softmax(normed @ model.W_U + model.b_U, -1)[:, target]

    found = []
    n_source = coefficients.shape[1]
    for part in torch.arange(coefficients.numel(), device=state.device).split(LOGITS_AT_ONCE // model.cfg.d_vocab):
        written = coefficients.flatten()[part, None] * directions[part // n_source]
        found.append(log_probs(state + written))
    return torch.cat(found).reshape(coefficients.shape) - log_probs(state[None])


# --- the comparisons --------------------------------------------------------------------------------------------------


class Subvalues:
    """A model and prompts, and the comparisons made on them. The plain algorithm scores the first prompt alone."""

    def __init__(self, name: str, model: Any, batch: TokenBatch) -> None:
        self.name, self.model, self.batch = name, model, batch
        self.first = next(batch.select(range(1)).chunks())
        self.rows: list[Comparison] = []
        self.plain: dict[Kind, tuple[float, dict[int, Tensor]]] = {}
        with torch.no_grad():
            run = lambda: model.run_with_cache(self.first.tokens, return_type=None)[1]  # noqa: E731
            self.cache_seconds, self.cache = best_of_some(run)

    def top(self, kind: Kind, k: int, n_layers: int) -> None:
        """The best `k` neurons of the first prompt; the plain algorithm scores `n_layers` layers."""
        self.plain[kind] = plain_seconds, plain = self._plain(kind, n_layers)
        found, add = self._measured(self.first, lambda: top_neurons(self.model, self.first, kind, k=k))
        neuron = found.neuron[0] if kind == "ffn" else found.head[0] * self.model.cfg.d_head + found.neuron[0]
        source = 0 * neuron if kind == "ffn" else found.src_pos[0]
        ours = dict(zip(zip(found.layer[0], neuron, source, strict=True), found.score[0], strict=True))
        theirs = {(layer, *place): score for layer, scores in plain.items() for place, score in _numbered(scores)}
        shared = [place for place in ours if place[0] in plain]
        best = sorted(theirs, key=theirs.__getitem__, reverse=True)[: len(shared)]
        add(
            work=f"exact top {k} of all {'FFN neurons' if kind == 'ffn' else 'attention neurons and source positions'}",
            neurons=self.model.cfg.n_layers * next(iter(plain.values())).numel(),
            plain_seconds=plain_seconds,
            plain_sample=self._sample(plain),
            max_error=float(max((abs(ours[place] - theirs[place]) for place in shared), default=0.0)),
            same_top=f"{len(set(best) & set(shared))} of {len(shared)}",
        )

    def all_scores(self) -> None:
        """Every FFN neuron's score in every prompt, after `top` of FFN neurons, which ran the plain algorithm."""
        plain_seconds, plain = self.plain["ffn"]
        found, add = self._measured(self.batch, lambda: score_neurons(self.model, self.batch))
        ours = torch.as_tensor(found.score[0])[list(plain)].flatten()
        theirs = torch.cat([scores[:, 0] for scores in plain.values()]).cpu()
        k = min(300, len(ours))
        same = len(set(ours.topk(k).indices.tolist()) & set(theirs.topk(k).indices.tolist()))
        add(
            work=f"exact scores of all FFN neurons, {len(self.batch)} prompts",
            neurons=found.score[0].size,
            plain_seconds=plain_seconds * len(self.batch),
            plain_sample=f"{self._sample(plain)}, 1 of {len(self.batch)} prompts",
            max_error=float((ours - theirs).abs().max()),
            same_top=f"{same} of {k}",
        )

    @torch.no_grad()
    def _plain(self, kind: Kind, n_layers: int) -> tuple[float, dict[int, Tensor]]:
        """Seconds for all layers of the first prompt, its run included, and the scores of some layers."""
        every = self.model.cfg.n_layers
        layers = [int((i + 0.5) * every / n_layers) for i in range(n_layers)]
        found = [timed(lambda n=n: plain_scores(self.model, self.first, self.cache, kind, n)) for n in layers]
        fastest = min(seconds for seconds, _ in found)
        return self.cache_seconds + fastest * every, {n: scores for n, (_, scores) in zip(layers, found, strict=True)}

    def _measured(self, batch: TokenBatch, run: Callable[[], Any]) -> tuple[Any, Callable[..., None]]:
        """What `run` returns, and what adds a row with its time."""
        with torch.no_grad():
            forward_seconds, _ = best_of_some(lambda: self.model(batch.tokens))
        seconds, found = best_of_some(run)

        def add(*, plain_seconds: float, **rest: Any) -> None:
            row = Comparison(
                model=self.name,
                tokens=f"{len(batch)} x {batch.tokens.shape[1]}",
                seconds=seconds,
                beyond_forward=seconds - forward_seconds,
                plain_seconds=plain_seconds,
                ratio=plain_seconds / seconds,
                **rest,
            )
            self.rows.append(row)
            print(f"  {row.model}, {row.tokens}, {row.work}: {row.ratio:.0f} x", flush=True)

        return found, add

    def _sample(self, plain: dict[int, Tensor]) -> str:
        every = self.model.cfg.n_layers
        return "all layers" if len(plain) == every else f"{len(plain)} of {every} layers"


def _numbered(scores: Tensor) -> Iterable[tuple[tuple[int, int], float]]:
    """Scores by neuron and source position."""
    for neuron, of_sources in enumerate(scores.tolist()):
        for source, score in enumerate(of_sources):
            yield (neuron, source), score


def quick(name: str, model: Any) -> list[Comparison]:
    """Everything on random tokens, the plain algorithm on one layer."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, model.cfg.d_vocab, (2, 6), generator=generator)
    bench = Subvalues(name, model, icl.token_batch(model, tokens, [3, 5]))
    bench.top("ffn", 30, n_layers=1)
    bench.top("attention", 20, n_layers=1)
    bench.all_scores()
    return bench.rows


def smollm2() -> tuple[Any, TokenBatch]:
    """The real model, and 16 questions for capitals, the first of 26 tokens."""
    model = icl.load_model("smollm2-135m", backend="hooked")
    capitals = [fact for fact in load_facts().facts if fact.type == "capital" and fact.answer not in SHOTS][:16]
    return model, icl.token_batch(model, [SHOTS + fact.text for fact in capitals], [f" {c.answer}" for c in capitals])


def real() -> list[Comparison]:
    """Everything on SmolLM2, and the memory that it takes."""
    bench = Subvalues("SmolLM2-135M", *smollm2())
    bench.top("ffn", 300, n_layers=10)
    bench.top("attention", 200, n_layers=2)
    bench.all_scores()
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}  # freed tensors go back, so growth does not hide in slack
    peaks = json.loads(subprocess.check_output([sys.executable, __file__], text=True, env=env).splitlines()[-1])
    return [replace(row, peak_bytes=peak) for row, peak in zip(bench.rows, peaks, strict=True)]


def peaks() -> list[int]:
    """How much the process grows above the model in the three pieces of work, each done for the first time."""
    model, batch = smollm2()
    first = next(batch.select(range(1)).chunks())
    with torch.no_grad():
        model(batch.tokens)
    works = (
        lambda: top_neurons(model, first, "ffn", k=300),
        lambda: top_neurons(model, first, "attention", k=200),
        lambda: score_neurons(model, batch),
    )
    return [with_peak(work)[2] for work in works]


# --- how cost grows ---------------------------------------------------------------------------------------------------


def growth() -> list[Growth]:
    """Time against the vocabulary, the number of neurons and the number of prompts, one of them growing at a time."""
    rows = []
    for grows, sizes in GROWTH.items():
        for size in sizes:
            at = {name: values[0] for name, values in GROWTH.items()} | {grows: size}
            model = _random_model(at["d_vocab"], at["d_mlp"])
            tokens = torch.randint(0, at["d_vocab"], (at["prompts"], 16), generator=torch.Generator().manual_seed(0))
            batch = icl.token_batch(model, tokens, [7] * at["prompts"])
            runs = (lambda: top_neurons(model, batch, k=100), lambda: score_neurons(model, batch))  # noqa: B023
            top_seconds, score_seconds = (best_of_some(run)[0] for run in runs)
            neurons = model.cfg.n_layers * at["d_mlp"]
            rows.append(Growth(grows, at["d_vocab"], neurons, at["prompts"], top_seconds, score_seconds))
            print(f"  {grows} {size}: top {top_seconds:.3f} s, all {score_seconds:.3f} s", flush=True)
    return rows


def _random_model(d_vocab: int, d_mlp: int) -> Any:
    config = HookedTransformerConfig(
        n_layers=4, n_heads=4, d_model=256, d_head=64, d_mlp=d_mlp, d_vocab=d_vocab, n_ctx=32, seed=0,
        act_fn="gelu_new", normalization_type="LN",
    )  # fmt: skip
    return HookedTransformer(config).eval().requires_grad_(False)


# --- what is printed and written --------------------------------------------------------------------------------------


def show(comparisons: Sequence[Comparison], grown: Sequence[Growth]) -> None:
    """Print the tables."""
    for title, (heads, cells) in (
        ("icl_circuits.subvalues against the plain algorithm", _comparison_cells([asdict(row) for row in comparisons])),
        ("How cost grows", _growth_cells([asdict(row) for row in grown])),
    ):
        if cells:
            table = Table(title=title)
            for head in heads:
                table.add_column(head)
            for row in cells:
                table.add_row(*row)
            Console(width=220).print(table)


def tables(stored: dict[str, Any]) -> str:
    """The tables of docs/performance.md, of what `results.json` holds under `subvalues`."""
    lines = []
    for heads, cells in (_comparison_cells(stored["rows"]), _growth_cells(stored["growth"])):
        lines += [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *cells)] + [""]
    machine = stored["machine"]
    return f"Measured on {machine['date']}: {machine['device']}, torch {machine['torch']}.\n\n" + "\n".join(lines)


def fill_page(stored: dict[str, Any]) -> None:
    """Put the tables into docs/performance.md."""
    start, stop = "<!-- subvalues: written by benchmarks/run.py -->\n\n", "<!-- end -->"
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(start)
    PAGE.write_text(f"{before}{start}{tables(stored)}{stop}{rest.split(stop, 1)[1]}", encoding="utf-8")


def _comparison_cells(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    heads = ["work", "model", f"prompts {TIMES} tokens", "neurons", "ours, s", "beyond the forward pass, s"]
    heads += ["plain, s", "plain timed on", "ratio", "ratio beyond", "max error, nats", "same top", "peak, MB"]
    return heads, [
        [
            row["work"],
            row["model"],
            row["tokens"].replace("x", TIMES),
            str(row["neurons"]),
            f"{row['seconds']:.2f}",
            f"{row['beyond_forward']:.2f}",
            f"{row['plain_seconds']:.0f}",
            row["plain_sample"],
            f"{row['ratio']:.0f} {TIMES}",
            f"{_ratio_beyond(row):.0f} {TIMES}",
            f"{row['max_error']:.1e}",
            row["same_top"],
            "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}",
        ]
        for row in rows
    ]


def _ratio_beyond(row: dict[str, Any]) -> float:
    """The ratio of what both take beyond the forward pass."""
    forward = row["seconds"] - row["beyond_forward"]
    return float((row["plain_seconds"] - forward) / row["beyond_forward"])


def _growth_cells(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    heads = ["vocabulary", "FFN neurons", "prompts", "top 100, s", "all scores, s"]
    return heads, [
        [
            str(row["d_vocab"]),
            str(row["neurons"]),
            str(row["prompts"]),
            f"{row['top_seconds']:.3f}",
            f"{row['score_seconds']:.3f}",
        ]
        for row in rows
    ]


if __name__ == "__main__":
    print(json.dumps(peaks()))
