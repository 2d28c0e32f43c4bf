"""How much memory the package's own plan takes of a model, counted from its shape: nothing is loaded or run."""

from dataclasses import dataclass
from typing import Any

TOKENS_AT_ONCE = 2048
"""Prompts are run in parts of at most this many tokens, never less than one prompt."""
ATTENTION_COPIES = 4
"""TransformerLens's attention holds scores, their softmax, zeros in place of NaN, and what it chooses of the two."""


@dataclass(frozen=True)
class ModelShape:
    """What of a model's configuration decides its memory."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    gated: bool
    """Whether MLPs have a third matrix, a gate."""

    @classmethod
    def of(cls, cfg: Any) -> "ModelShape":
        """The shape in a TransformerLens configuration."""
        return cls(
            cfg.n_layers,
            cfg.n_heads,
            getattr(cfg, "n_key_value_heads", None) or cfg.n_heads,
            cfg.d_model,
            cfg.d_head,
            cfg.d_mlp or 0,
            cfg.d_vocab,
            bool(getattr(cfg, "gated_mlp", False)),
        )

    @property
    def in_layers(self) -> int:
        """The numbers in the matrices of all layers: what every token is multiplied with."""
        attention = 2 * (self.n_heads + self.n_kv_heads) * self.d_head * self.d_model
        return self.n_layers * (attention + (2 + self.gated) * self.d_model * self.d_mlp)

    def weights(self, itemsize: int) -> int:
        """Bytes of the weights: the layers', the embedding and the unembedding. TransformerLens ties no two."""
        return itemsize * (self.in_layers + 2 * self.d_vocab * self.d_model)

    def forward(self, n_prompts: int, n_pos: int, itemsize: int) -> int:
        """Bytes that one layer of TransformerLens's forward pass holds at once, with the attention of all its heads."""
        attention = ATTENTION_COPIES * self.n_heads * n_pos * n_pos
        return itemsize * n_prompts * (attention + n_pos * (3 * self.d_model + 3 * self.d_mlp))

    def base_run(self, n_prompts: int, n_pos: int, itemsize: int) -> int:
        """Bytes that the engine keeps of the run that a sweep starts from, residual states in float32 or wider."""
        keys_and_values = 2 * self.n_kv_heads * self.d_head * itemsize
        return self.n_layers * n_prompts * n_pos * (max(4, itemsize) * self.d_model + keys_and_values)

    def operations(self, n_prompts: int, n_pos: int) -> int:
        """Floating-point operations of one forward pass that unembeds the answer positions alone."""
        attention = 4 * self.n_layers * self.n_heads * self.d_head * n_pos * n_pos
        return n_prompts * (2 * self.in_layers * n_pos + attention + 2 * self.d_model * self.d_vocab)


def prompts_at_once(n_pos: int) -> int:
    """How many prompts of `n_pos` tokens are run together."""
    return max(1, TOKENS_AT_ONCE // n_pos)
