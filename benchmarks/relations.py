"""The relation index (`icl_circuits.relations`) side by side with a plain loop over heads, triplets and positions.

The plain loop takes attention from a text's own cache. At every position it asks whether the triplet passes, and there
it projects what the head writes onto the whole vocabulary, and takes the softmax. It does so in one of two ways:
`where a triplet passes` asks first and projects only there; `at every position` projects in any case. It takes long, so
some texts are timed, and for the second some heads of them, spread evenly. Its time is scaled up by the number of
heads, triplets and positions, and the forward passes of all texts are added. Our own time is for everything that
`relation_index` gives, its test against 1000 draws included.

    python benchmarks/run.py --only relations

measures, prints, stores the numbers in `benchmarks/results.json`, and fills the table of `docs/performance.md`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import best_of_some, timed
from rich.console import Console
from rich.table import Table

import icl_circuits as icl
from icl_circuits.relations import RelationBatch, load_conllu, relation_batch, relation_index
from icl_circuits.relations.index import TAU

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
TIMES = "\u00d7"


@dataclass(frozen=True)
class Indexed:
    """The relation index of all heads, by us and by a plain loop."""

    projects: str
    """Where the plain loop projects onto the vocabulary."""
    model: str
    texts: int
    triplets: int
    places: int
    """Heads times triplets times the positions behind both."""
    passing: int
    """Those that pass."""
    seconds: float
    """The forward passes included."""
    beyond_forward: float
    """Seconds without plain forward passes of the same texts."""
    plain_seconds: float
    """The forward passes included; the rest scaled up by places."""
    plain_sample: str
    ratio: float
    max_error: float
    """Largest difference of a triplet's own mean in a head, over those that both computed."""
    compared: int
    """How many that are."""


# --- the plain loop ---------------------------------------------------------------------------------------------------


@dataclass
class Plain:
    """What the plain loop found, of some texts and heads."""

    shares: dict[tuple[int, int, int], list[float]] = field(default_factory=dict)
    """The tail's shares at all positions that pass, by triplet, layer and head."""
    places: int = 0


@torch.no_grad()
def plain_text(
    model: Any, given: RelationBatch, row: int, cache: Any, heads: Sequence[tuple[int, int]], everywhere: bool
) -> Plain:
    """The formula as it reads, on one text."""
    found, tokens, W_E, W_U = Plain(), given.batch.tokens[row, : int(given.batch.last[row]) + 1], model.W_E, model.W_U
    for layer in sorted({layer for layer, _ in heads}):
        pattern, attn = cache["pattern", layer][0], model.blocks[layer].attn
        W_V, W_O = attn.W_V, attn.W_O  # of grouped queries these are put together when they are asked for
        for head in [head for of_layer, head in heads if of_layer == layer]:
            for triplet in np.flatnonzero(given.text == row):
                s, o = int(given.head_pos[triplet]), int(given.tail_pos[triplet])
                for j in range(max(s, o), len(tokens)):
                    found.places += 1
                    A = pattern[head, j, : j + 1]
                    others = torch.cat([A[:s], A[s + 1 :]])
                    passes = bool(A[s] > TAU * others.max())
                    if not (passes or everywhere):
                        continue
                    p = (W_E[tokens[j]] @ W_V[head] @ W_O[head] @ W_U).softmax(-1)
                    seen = p[tokens[: j + 1].unique()]
                    q, of_tail = (seen - seen.mean()).clamp(min=0), (p[tokens[o]] - seen.mean()).clamp(min=0)
                    if passes and q.sum() > 0:
                        share = float(of_tail / q.sum())
                        found.shares.setdefault((int(triplet), layer, head), []).append(share)
    return found


# --- the comparison ---------------------------------------------------------------------------------------------------


def compared(name: str, model: Any, given: RelationBatch, samples: Sequence[tuple[bool, int, int]]) -> list[Indexed]:
    """Our index beside the plain loop, which projects everywhere or not, on so many texts and heads."""
    cfg, batch = model.cfg, given.batch
    every = [(layer, head) for layer in range(cfg.n_layers) for head in range(cfg.n_heads)]
    behind = batch.last.numpy()[given.text] - np.maximum(given.head_pos, given.tail_pos) + 1
    places = int(behind.sum()) * len(every)
    relation_index(model, given)  # which checks the model's identities once
    seconds, found = best_of_some(lambda: relation_index(model, given))
    with torch.no_grad():
        forward_seconds, _ = best_of_some(lambda: [model(part.tokens, return_type=None) for part in batch.chunks(2048)])
    rows = []
    for everywhere, n_texts, n_heads in samples:
        texts, heads = _spread(range(len(batch)), n_texts), _spread(every, n_heads)
        caches = {row: _cache(model, given, row) for row in texts}
        sample = lambda: [plain_text(model, given, row, caches[row], heads, everywhere) for row in texts]  # noqa: B023, E731
        plain_seconds, plain = timed(sample)
        shares = {place: np.mean(some) for one in plain for place, some in one.shares.items()}
        errors = [abs(float(found.by_triplet[place] - share)) for place, share in shares.items()]
        total = forward_seconds + plain_seconds * places / sum(one.places for one in plain)
        rows.append(
            Indexed(
                projects="at every position" if everywhere else "where a triplet passes",
                model=name,
                texts=len(batch),
                triplets=len(given),
                places=places,
                passing=int(found.n_passing.sum()),
                seconds=seconds,
                beyond_forward=seconds - forward_seconds,
                plain_seconds=total,
                plain_sample=f"{len(texts)} of {len(batch)} texts, {len(heads)} of {len(every)} heads",
                ratio=total / seconds,
                max_error=max(errors, default=0.0),
                compared=len(errors),
            )
        )
        print(f"  {name}, the plain loop projects {rows[-1].projects}: {rows[-1].ratio:.0f} x", flush=True)
    return rows


def _cache(model: Any, given: RelationBatch, row: int) -> Any:
    tokens = given.batch.tokens[row : row + 1, : int(given.batch.last[row]) + 1]
    with torch.no_grad():
        _, cache = model.run_with_cache(
            tokens, names_filter=lambda name: name.endswith("hook_pattern"), return_type=None
        )
    return cache


def _spread(things: Sequence[Any], n: int) -> list[Any]:
    """`n` of them, evenly spread; all where there are fewer."""
    n = min(n, len(things))
    return [things[int((i + 0.5) * len(things) / n)] for i in range(n)]


def quick(name: str, model: Any) -> list[Indexed]:
    """Random tokens, all of them in the plain loop."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, model.cfg.d_vocab, (2, 12), generator=generator)
    text, head, tail = np.array([(row, s, o) for row in range(2) for s in range(8) for o in (s + 1, s + 2)]).T
    batch = icl.token_batch(model, tokens, [3, 5])
    given = RelationBatch(batch, ("following",), text, np.zeros_like(text), head, tail, ())
    every = model.cfg.n_layers * model.cfg.n_heads
    return compared(name, model, given, [(False, 2, every), (True, 2, every)])


def real() -> list[Indexed]:
    """SmolLM2 on the built-in sentences."""
    model = icl.load_model("smollm2-135m", backend="hooked")
    given = relation_batch(model, load_conllu("dependencies"))
    return compared("SmolLM2-135M", model, given, [(False, 9, 270), (True, 6, 9)])


# --- what is printed and written --------------------------------------------------------------------------------------


def show(rows: Sequence[Indexed]) -> None:
    """Print the table."""
    table = Table(title="icl_circuits.relations against the plain loop")
    heads, cells = _cells([asdict(row) for row in rows])
    for head in heads:
        table.add_column(head)
    for row in cells:
        table.add_row(*row)
    Console(width=220).print(table)


def table(stored: dict[str, Any]) -> str:
    """The table of docs/performance.md, of what `results.json` holds under `relations`."""
    heads, cells = _cells(stored["rows"])
    machine = stored["machine"]
    lines = [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *cells)]
    said = f"Measured on {machine['date']}: {machine['device']}, torch {machine['torch']}."
    return said + "\n\n" + "\n".join(lines) + "\n"


def fill_page(stored: dict[str, Any]) -> None:
    """Put the table into docs/performance.md."""
    start, stop = "<!-- relations: written by benchmarks/run.py -->\n\n", "<!-- end -->"
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(start)
    PAGE.write_text(f"{before}{start}{table(stored)}{stop}{rest.split(stop, 1)[1]}", encoding="utf-8")


def _cells(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    heads = ["the plain loop projects", "model", "texts", "triplets", "places", "of these pass", "ours, s"]
    heads += ["beyond the forward passes, s", "plain, s", "plain timed on", "ratio", "max error", "means compared"]
    return heads, [
        [
            row["projects"],
            row["model"],
            str(row["texts"]),
            str(row["triplets"]),
            str(row["places"]),
            str(row["passing"]),
            f"{row['seconds']:.2f}",
            f"{row['beyond_forward']:.2f}",
            f"{row['plain_seconds']:.0f}",
            row["plain_sample"],
            f"{row['ratio']:.0f} {TIMES}",
            f"{row['max_error']:.1e}",
            str(row["compared"]),
        ]
        for row in rows
    ]
