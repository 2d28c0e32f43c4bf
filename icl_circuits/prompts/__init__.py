"""Text to tokens: data sets, the paper's template and its variants, batches with exact label positions."""

from icl_circuits.prompts.batch import DEFAULT_SEPARATOR, PromptBatch, encode, label_positions_of
from icl_circuits.prompts.prompt import (
    Demo,
    Prompt,
    group_by_label,
    imbalance,
    reorder,
    reverse_labels,
    sample_prompts,
    zero_shot,
)
from icl_circuits.prompts.rows import Row, Rows, load_rows
from icl_circuits.prompts.token_batch import TokenBatch

__all__ = [
    "DEFAULT_SEPARATOR",
    "Demo",
    "Prompt",
    "PromptBatch",
    "Row",
    "Rows",
    "TokenBatch",
    "encode",
    "group_by_label",
    "imbalance",
    "label_positions_of",
    "load_rows",
    "reorder",
    "reverse_labels",
    "sample_prompts",
    "zero_shot",
]
