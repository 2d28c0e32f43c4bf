"""Analyses of one long prompt on a tiny random model: prints how far memory grew, in MiB, by step.

A process of its own, since a peak of memory never falls: `python long_prompt.py TOKENS`. Growth is counted from the
peak of TransformerLens's own forward pass, which makes the attention of all heads of one layer at a time.
"""

import os
import sys
import warnings

os.environ["TQDM_DISABLE"] = "1"
import numpy as np
import torch

from icl_circuits.heads import attention_between, log_prob_increase, position_increase, zero_each_head
from icl_circuits.prompts import TokenBatch
from icl_circuits.relations import RelationBatch, relation_index
from icl_circuits.residual import Head


def peak() -> int:
    """The most memory that the process ever held, MiB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024


def say(step: str, mebibytes: int) -> None:
    """A line of what this prints."""
    sys.stdout.write(f"{step} {mebibytes}\n")
    sys.stdout.flush()


def main(n_pos: int) -> None:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=2, n_heads=4, d_model=32, d_head=8, d_mlp=64, d_vocab=100, n_ctx=n_pos, act_fn="gelu_new", seed=0,
        positional_embedding_type="rotary", rotary_dim=8, default_prepend_bos=False, device="cpu", model_name="tiny",
    )  # fmt: skip
    model = HookedTransformer(config).eval().requires_grad_(False)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(100, size=(1, n_pos)))
    of_answer = {"last": torch.tensor([n_pos - 1]), "target": torch.tensor([3]), "foil": torch.tensor([4])}
    batch = TokenBatch(tokens=tokens, texts=("",), **of_answer)
    with torch.no_grad():
        model(batch.tokens[:, : n_pos // 8])
        before = peak()
        model(batch.tokens)
    plain = peak()
    say("forward", plain - before)
    last = batch.last[:, None]
    log_prob_increase(model, batch)
    say("increase", peak() - plain)
    position_increase(model, batch, (Head(0, 1), Head(1, 2)))
    say("positions", peak() - plain)
    attention_between(model, batch, last, last[..., None] - 5)
    say("attention", peak() - plain)
    zero_each_head(model, batch)
    say("sweep", peak() - plain)
    zero_each_head(model, batch, [Head(0, 0)], positions="all")
    say("sweep at all positions", peak() - plain)
    places = np.arange(0, n_pos - 8, 200)
    ones = np.zeros(len(places), np.int64)
    given = RelationBatch(batch, ("r",), ones, ones, places + 1, places + 4, ())
    relation_index(model, given, tau=1.0, draws=20)
    say("relation index", peak() - plain)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    warnings.simplefilter("ignore")
    main(int(sys.argv[1]))
