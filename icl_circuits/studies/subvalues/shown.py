"""What the page of a prompt shows: who writes its answer, and what each promotes."""

import pandas as pd
import torch

from icl_circuits.heads import LogProbIncrease, position_increase, target_log_probs
from icl_circuits.models import LensModel, attention_weights, readout
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import Capture, Head, Neuron, answer_logits, final_state
from icl_circuits.studies.subvalues.begun import FactsBegun
from icl_circuits.subvalues import (
    Promoted,
    QueryImportance,
    TopNeurons,
    coefficient_split,
    head_neuron_tokens,
    layer_positions,
    neuron_tokens,
    promoted,
    tokens_through_head,
)
from icl_circuits.viz import ShownFact, ShownWriter

LAYERS, HEADS, NEURONS, QUERIES = 12, 12, 24, 16
"""How many of each a page lists."""
TOKENS = 8
"""How many tokens each promotes and demotes there."""
COMPONENTS = 8
"""How many components that activate an FFN neuron."""


@torch.no_grad()
def shown_fact(
    begun: FactsBegun,
    row: int,
    increase: LogProbIncrease,
    ffn: TopNeurons,
    attention: TopNeurons,
    query: QueryImportance,
) -> ShownFact:
    """What the page shows of one prompt."""
    model, fact = begun.model, begun.known.facts[row]
    one = begun.known.batch.select([row])
    one = next(iter(one.chunks()))
    n_layers, last = model.cfg.n_layers, final_state(model)
    run = Capture(
        [*((s, n) for n in range(n_layers) for s in ("resid_pre", "z", "attn_out", "mlp_out")), last], one.last
    )
    logits = answer_logits(model, one, run)[0].float()
    probs, target = logits.softmax(0), int(one.target[0])
    states = torch.stack([*(run.at("resid_pre", n)[0] for n in range(n_layers)), run.at(*last)[0]])[None]
    out = readout(model)
    log_prob = target_log_probs(out, states, out.norm.scale(run.at(*last)), one.target)[0]
    found = _layers(model, one, run, increase, row)
    found += _heads(model, one, run, increase, row)
    found += _neurons(model, one, row, ffn, attention)
    found += _queries(model, row, attention, query)
    best = probs.topk(5)
    return ShownFact(
        tokens=tuple(model.tokenizer.decode([token]) for token in one.tokens[0].tolist()),
        answer=begun.shown_answer(row),
        type=fact.type,
        prob=float(probs[target]),
        rank=1 + int((logits > logits[target]).sum()),
        predicted=tuple(
            (model.tokenizer.decode([token]), float(prob))
            for token, prob in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ),
        attn=increase.attn[row],
        mlp=increase.mlp[row],
        log_prob=log_prob.cpu().numpy(),
        heads=increase.heads[row],
        writers=tuple(found),
    )


def _layers(model: LensModel, one: TokenBatch, run: Capture, increase: LogProbIncrease, row: int) -> list[ShownWriter]:
    scores = [("attn", n, float(increase.attn[row, n])) for n in range(model.cfg.n_layers)]
    scores += [("mlp", n, float(increase.mlp[row, n])) for n in range(model.cfg.n_layers)]
    best = sorted(scores, key=lambda entry: -entry[2])[:LAYERS]
    vectors = torch.stack([run.at("attn_out" if kind == "attn" else "mlp_out", n)[0] for kind, n, _ in best])
    moved = layer_positions(model, one).increase[0]
    found = []
    for (kind, n, score), says in zip(best, promoted(model, vectors, n_tokens=TOKENS), strict=True):
        if kind == "attn":
            by_position = tuple(moved[n].tolist())
            found.append(ShownWriter(f"attn{n}", "attn", n, score, says.top, says.last, by_position=by_position))
        else:
            found.append(ShownWriter(f"MLP{n}", "mlp", n, score, says.top, says.last))
    return found


def _heads(model: LensModel, one: TokenBatch, run: Capture, increase: LogProbIncrease, row: int) -> list[ShownWriter]:
    order = increase.heads[row].ravel().argsort()[::-1][:HEADS]
    heads = [Head(int(i) // model.cfg.n_heads, int(i) % model.cfg.n_heads) for i in order]
    places = position_increase(model, one, heads)
    vectors = []
    for head in heads:
        added, _ = attention_weights(model, head.layer).added(run.at("z", head.layer))
        vectors.append(added[0, head.head])
    return [
        ShownWriter(
            str(head),
            "head",
            head.layer,
            float(increase.heads[row, head.layer, head.head]),
            says.top,
            says.last,
            attention=tuple(places.attention[0, i].tolist()),
            by_position=tuple(places.increase[0, i].tolist()),
        )
        for i, (head, says) in enumerate(
            zip(heads, promoted(model, torch.stack(vectors), n_tokens=TOKENS), strict=True)
        )
    ]


def _neurons(model: LensModel, one: TokenBatch, row: int, ffn: TopNeurons, attention: TopNeurons) -> list[ShownWriter]:
    """The best neurons of both kinds; what they promote has the sign of their coefficient."""
    split = coefficient_split(model, one, ffn.of([row]).first(NEURONS)).to_frame(COMPONENTS)
    found = []
    for top in (ffn, attention):
        layers, heads, numbers = (getattr(top, name)[row, :NEURONS].tolist() for name in ("layer", "head", "neuron"))
        places = list(zip(layers, heads, numbers, strict=True))
        if top.kind == "ffn":
            says = neuron_tokens(model, [Neuron(n, k) for n, _, k in places], n_tokens=TOKENS)
        else:
            says = head_neuron_tokens(model, [(Head(n, h), k) for n, h, k in places], n_tokens=TOKENS)
        for rank, (name, said) in enumerate(zip(top.names(row)[:NEURONS], says, strict=True)):
            coefficient = float(top.coefficient[row, rank])
            best, worst = _as_written(said, coefficient)
            found.append(
                ShownWriter(
                    name,
                    top.kind,
                    layers[rank],
                    float(top.score[row, rank]),
                    best,
                    worst,
                    coefficient=coefficient,
                    position=None if top.kind == "ffn" else int(top.src_pos[row, rank]),
                    activated_by=_parts(split[split["rank"] == rank]) if top.kind == "ffn" else None,
                )
            )
    return found


def _parts(split: pd.DataFrame) -> tuple[tuple[str, float], ...]:
    """The largest parts, and what is left of what the neuron reads."""
    rest = float(split["read"].iloc[0] - split["part"].sum())
    return (*zip(split["component"], split["part"], strict=True), ("all others", rest))


def _queries(model: LensModel, row: int, attention: TopNeurons, query: QueryImportance) -> list[ShownWriter]:
    """The best query neurons, read through the best head above each."""
    found = []
    n_ranks = attention.layer.shape[1]
    for rank in range(min(QUERIES, query.layer.shape[1])):
        neuron = Neuron(int(query.layer[row, rank]), int(query.neuron[row, rank]))
        position, coefficient = int(query.position[row, rank]), float(query.coefficient[row, rank])
        reading = [
            i
            for i in range(n_ranks)
            if attention.layer[row, i] > neuron.layer and attention.src_pos[row, i] == position
        ]
        if not reading:
            continue
        head = Head(int(attention.layer[row, reading[0]]), int(attention.head[row, reading[0]]))
        best, worst = _as_written(tokens_through_head(model, neuron, head, n_tokens=TOKENS), coefficient)
        score = float(query.score[row, rank])
        found.append(
            ShownWriter(
                str(neuron),
                "query",
                neuron.layer,
                score,
                best,
                worst,
                coefficient=coefficient,
                position=position,
                through=str(head),
            )
        )
    return found


def _as_written(says: Promoted, coefficient: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is raised and what is lowered: turned round where the coefficient is negative."""
    return (says.top, says.last) if coefficient >= 0 else (says.last, says.top)
