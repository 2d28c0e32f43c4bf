"""Every text decoder class that TransformerBridge accepts: each analysis is right, or refused by name.

The table of docs/models.md says which; `python tests/test_architectures.py` writes it anew.
"""

import re
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from analyses import ANALYSES, Plain, outcome
from architectures import decoder_classes, tiny_config
from conftest import BACKENDS, require_backend, save_model, save_tokenizer

import icl_circuits as icl
from icl_circuits.errors import InputError
from icl_circuits.models import LensModel, load_model
from icl_circuits.models.lens import hooked_transformer_class

DOCUMENT = Path(__file__).parent.parent / "docs" / "models.md"
WRITTEN_ON = "3.9"
"""The TransformerLens that the document's table is of."""


def row(name: str, backend: str, folder: Path) -> list[str]:
    """The table's row of one class: its name, backend and outcomes; or why it cannot be loaded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = load_model(str(folder), backend=backend, device="cpu")
    except InputError as error:
        return [name, backend, _why_not_loaded(str(error))]
    batch = icl.encode(model, icl.sample_prompts(icl.load_rows("word-categories"), 3, shots=2, seed=1))
    plain = Plain(model, batch)
    return [name, backend, *(outcome(model, batch, plain, group) for group in ANALYSES)]


def _why_not_loaded(message: str) -> str:
    reasons = {
        "no per-head z|no stack of blocks": "not loaded: not all layers have attention heads",
        "heads cannot be told apart": "not loaded: z is not split into heads",
        "computes something else": "not loaded: TransformerLens computes something else than Hugging Face",
        "sees what comes later": "not loaded: an encoder",
        "no conversion for": "not loaded: no conversion",
        "TransformerBridge cannot load": "not loaded: TransformerLens cannot",
        "cannot run": "not loaded: TransformerLens cannot run it",
    }
    return next(words for pattern, words in reasons.items() if re.search(pattern, message))


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", decoder_classes())
def test_each_decoder_class(tmp_path: Path, name: str, backend: str) -> None:
    require_backend(backend)
    save_model(tmp_path, tiny_config(name, save_tokenizer(tmp_path)))
    cells = row(name, backend, tmp_path)
    if version("transformer_lens").startswith(WRITTEN_ON) and cells[2:] != ["not loaded: no conversion"]:
        table = DOCUMENT.read_text(encoding="utf-8")
        assert line(cells) in table.splitlines(), f"{DOCUMENT} lacks {line(cells)}"


ROTARY = {"positional_embedding_type": "rotary", "rotary_dim": 8}
OF_ONES_OWN: dict[str, dict[str, Any]] = {
    "attention only": {"attn_only": True, "d_mlp": None, "act_fn": None},
    "no norms": {"normalization_type": None},
    "norms without weights": {"normalization_type": "LNPre"},
    "neighbours turned": {"positional_embedding_type": "rotary", "rotary_dim": 4, "rotary_adjacent_pairs": True},
    "shortformer": {"positional_embedding_type": "shortformer"},
    "ALiBi": {"positional_embedding_type": "alibi"},
    "parallel": {"parallel_attn_mlp": True},
    "ungrouped": {"n_key_value_heads": 2, "ungroup_grouped_query_attention": True},
    "wide heads": {"d_head": 16},
    "unscaled": {"use_attn_scale": False},
    "scaled by layer": {"scale_attn_by_inverse_layer_idx": True},
    "seeing all": {"attention_dir": "bidirectional"},
    "windows": {"use_local_attn": True, "window_size": 8, "attn_types": ["local", "global", "local"]},
    "post-norms and caps": {
        "normalization_type": "RMS", "use_normalization_before_and_after": True, "attn_scores_soft_cap": 2.0,
        "output_logits_soft_cap": 3.0, "gated_mlp": True, "final_rms": True, **ROTARY,
    },
    "normed queries": {"use_qk_norm": True, "normalization_type": "RMS", **ROTARY},
    "log-n attention": {"use_logn_attn": True},
    "split inputs": {"use_split_qkv_input": True},
    "experts": {"num_experts": 4, "experts_per_token": 2, "gated_mlp": True, "normalization_type": "RMS"},
}  # fmt: skip
"""`HookedTransformer` configurations that a user may train."""
NO_SCORES = {"two towers", "tower reads", "sweep", "paths", "scores changed"}
NOT_EXACT: dict[str, set[str]] = {
    "attention only": {"subvalues"},
    "experts": {"subvalues"},
    "shortformer": NO_SCORES,
    "ALiBi": NO_SCORES,
    "log-n attention": NO_SCORES,
    "seeing all": set(ANALYSES),
    "post-norms and caps": {"tower reads"},
    "normed queries": {"tower reads"},
}
"""What is refused, or takes the plain path, by configuration; all else is exact."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", OF_ONES_OWN)
def test_each_kind_of_hooked_transformer(gpt2: LensModel, kind: str) -> None:
    hooked = hooked_transformer_class()
    if hooked is None:
        pytest.skip("this TransformerLens has no HookedTransformer")
    from transformer_lens import HookedTransformerConfig

    sizes = {"n_layers": 3, "d_model": 32, "n_ctx": 256, "d_head": 8, "n_heads": 4, "d_mlp": 64, "act_fn": "gelu_new"}
    more = {"normalization_type": "LN", "d_vocab": gpt2.cfg.d_vocab, "seed": 0, "device": "cpu", "model_name": kind}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = hooked(HookedTransformerConfig(**(sizes | more | OF_ONES_OWN[kind])))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.2 if parameter.ndim > 1 else 0.5))
    model.tokenizer = gpt2.tokenizer
    model.eval().requires_grad_(False)
    prompts = icl.sample_prompts(icl.load_rows("word-categories"), 3, shots=2, seed=1)
    batch = icl.encode(model, prompts, prepend_bos=False)
    plain = Plain(model, batch)
    found = {group: outcome(model, batch, plain, group) for group in ANALYSES}
    assert {group for group, words in found.items() if words != "exact"} == NOT_EXACT.get(kind, set()), found


def backends() -> tuple[str, ...]:
    return ("bridge",) if hooked_transformer_class() is None else ("bridge", "hooked")


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_table() -> None:
    loaded, absent = [], []
    for name in decoder_classes():
        with tempfile.TemporaryDirectory() as folder:
            save_model(Path(folder), tiny_config(name, save_tokenizer(Path(folder))))
            for backend in backends():
                cells = row(name, backend, Path(folder))
                sys.stdout.write(line(cells) + "\n")
                if len(cells) > 3:
                    loaded.append(line(cells))
                elif "no conversion" not in cells[2]:
                    absent.append(line(cells))
    head = [line(["class", "backend", *ANALYSES]), line(["---"] * (2 + len(ANALYSES)))]
    lines = [*head, *loaded, "", line(["class", "backend", "why"]), line(["---"] * 3), *absent]
    before, mark, _ = DOCUMENT.read_text(encoding="utf-8").partition("<!-- table -->\n")
    DOCUMENT.write_text(f"{before}{mark}\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_table()
