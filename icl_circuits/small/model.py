"""The small model in plain PyTorch: a decoder of the shape of Qwen 2, and its files as Hugging Face has them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from icl_circuits.small.language import NEW_LINE, UNKNOWN, Language

THETA = 1000.0
"""Base of the rotary embedding."""
N_CTX = 1024
EMBEDDING_STD, WRITING_SCALE, BIAS_STD, FINAL_GAIN = 0.02, 0.35, 1.0, 4.0
"""How the weights begin: the standard deviation of embeddings, what heads and neurons write beside what they read, the
standard deviation of biases of queries and keys, and the final norm's weights."""
LOOKS_BACK, SHARPNESS, CONTENT = (1, 2, 3), 5.0, 0.1
"""The first heads of the first layer begin by attending so many tokens back, by so large biases of queries and keys,
beside which what the tokens are counts so little."""


@dataclass(frozen=True)
class Shape:
    """How large a model is."""

    n_layers: int = 4
    n_heads: int = 4
    d_model: int = 128
    d_mlp: int = 384


class Attention(nn.Module):
    """Rotary attention, causal, with biases of queries, keys and values."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d = shape.d_model
        self.n_heads = shape.n_heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(d, d) for _ in range(3))
        self.o_proj = nn.Linear(d, d, bias=False)

    def look_back(self, head: int, distance: int) -> None:
        """Make a head attend `distance` tokens back, by the fastest-turning third of its rotary pairs."""
        d_head = self.q_proj.weight.shape[0] // self.n_heads
        rows, half = slice(head * d_head, (head + 1) * d_head), d_head // 2
        angle = -distance * _frequencies(d_head)
        size = SHARPNESS * (torch.arange(half) < half // 3)
        for proj, a, b in ((self.q_proj, angle.cos(), angle.sin()), (self.k_proj, torch.ones(half), torch.zeros(half))):
            proj.weight[rows] *= CONTENT
            proj.bias[rows] = torch.cat([size * a, size * b])

    def forward(self, x: Float[Tensor, "batch pos d_model"], turn: "Turn") -> Float[Tensor, "batch pos d_model"]:
        """What the heads add to the residual stream."""
        batch, pos, d = x.shape
        q, k, v = (
            proj(x).view(batch, pos, self.n_heads, -1).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        scores = turn(q) @ turn(k).transpose(-1, -2) / math.sqrt(q.shape[-1]) + turn.mask
        z = scores.softmax(-1).to(v.dtype) @ v
        return self.o_proj(z.transpose(1, 2).reshape(batch, pos, d))


class Turn:
    """The rotary embedding and the causal mask of so many positions."""

    def __init__(self, pos: int, d_head: int, dtype: torch.dtype) -> None:
        angle = torch.arange(pos)[:, None] * _frequencies(d_head)
        self.cos, self.sin = angle.cos().to(dtype), angle.sin().to(dtype)
        self.mask = torch.full((pos, pos), float("-inf")).triu(1).to(dtype)

    def __call__(self, x: Float[Tensor, "batch head pos d_head"]) -> Float[Tensor, "batch head pos d_head"]:
        """Queries or keys, turned by their positions."""
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * self.cos - b * self.sin, b * self.cos + a * self.sin], dim=-1)


def _frequencies(d_head: int) -> Float[Tensor, " pair"]:
    """How far each pair of a head's dimensions turns a position, radians."""
    return THETA ** (-torch.arange(0, d_head, 2) / d_head)


class Mlp(nn.Module):
    """A gated feed-forward network."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(shape.d_model, shape.d_mlp, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(shape.d_mlp, shape.d_model, bias=False)

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What the neurons add to the residual stream."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """Attention, then neurons, each behind a norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = (nn.RMSNorm(shape.d_model, eps=1e-6) for _ in range(2))
        self.self_attn, self.mlp = Attention(shape), Mlp(shape)

    def forward(self, x: Float[Tensor, "batch pos d_model"], turn: Turn) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream behind the block."""
        x = x + self.self_attn(self.input_layernorm(x), turn)
        return x + self.mlp(self.post_attention_layernorm(x))


class SmallModel(nn.Module):
    """Tokens to logits. Parameters are named as in Hugging Face's Qwen 2, embedding and unembedding are one."""

    def __init__(self, n_words: int, shape: Shape = Shape(), *, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(n_words, shape.d_model)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.n_layers))
        self.norm = nn.RMSNorm(shape.d_model, eps=1e-6)
        self._begin(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _begin(self, generator: torch.Generator) -> None:
        """Random weights, but for what spares the long plateau that training from random ones has.

        Heads begin by copying: their output matrices are their value matrices turned round. Some of the first layer
        look back a fixed number of tokens. What matches what, the query-key side, is left to be learned.
        """
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                std = EMBEDDING_STD if name == "embed_tokens.weight" else 1 / math.sqrt(weight.shape[1])
                nn.init.normal_(weight, std=std, generator=generator)
            elif name.endswith("bias"):
                nn.init.normal_(weight, std=0.0 if "v_proj" in name else BIAS_STD, generator=generator)
        self.norm.weight.fill_(FINAL_GAIN)
        blocks = cast(Sequence[Block], self.layers)
        for layer in blocks:
            layer.mlp.down_proj.weight.mul_(WRITING_SCALE)
            layer.self_attn.o_proj.weight.copy_(WRITING_SCALE * layer.self_attn.v_proj.weight.T)
        for head, distance in zip(range(self.shape.n_heads), LOOKS_BACK, strict=False):
            blocks[0].self_attn.look_back(head, distance)

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        """The logits of what comes next."""
        x = self.embed_tokens(tokens)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        turn = Turn(tokens.shape[1], self.shape.d_model // self.shape.n_heads, dtype)
        for layer in self.layers:
            x = layer(x, turn)
        logits: Tensor = self.norm(x) @ self.embed_tokens.weight.T
        return logits


def write_checkpoint(model: SmallModel, language: Language, folder: Path) -> None:
    """The model as a Hugging Face folder: configuration, weights in bfloat16, tokenizer."""
    from safetensors.torch import save_file
    from transformers import Qwen2Config

    shape = model.shape
    config = Qwen2Config(
        vocab_size=len(language.vocabulary),
        hidden_size=shape.d_model,
        intermediate_size=shape.d_mlp,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_heads,
        max_position_embeddings=N_CTX,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        architectures=["Qwen2ForCausalLM"],
        dtype="bfloat16",
    )
    config.save_pretrained(folder)
    weights = {f"model.{name}": value.to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(language, folder)


def write_tokenizer(language: Language, folder: Path) -> None:
    """A tokenizer of whole words, signs and new lines; spaces are between words, whether written or not."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(dict(language.ids), unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed"),
            pre_tokenizers.Split(NEW_LINE, "isolated"),
            pre_tokenizers.Split(Regex(r"[^\w\s]"), "isolated"),
        ]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNKNOWN, model_max_length=N_CTX)
    fast.save_pretrained(folder)
