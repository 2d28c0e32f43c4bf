"""Mechanistic interpretability of in-context learning, on any model TransformerLens loads.

Names are imported on first use, so that `import icl_circuits` and `icl-circuits --help` stay quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icl_circuits.biases import add_minority_values as add_minority_values
    from icl_circuits.biases import majority_bias as majority_bias
    from icl_circuits.biases import mitigation as mitigation
    from icl_circuits.biases import recency_bias as recency_bias
    from icl_circuits.circuits import Circuit as Circuit
    from icl_circuits.circuits import evaluate_circuit as evaluate_circuit
    from icl_circuits.circuits import find_circuit as find_circuit
    from icl_circuits.circuits import minimality as minimality
    from icl_circuits.circuits import score_edges as score_edges
    from icl_circuits.errors import InputError as InputError
    from icl_circuits.heads import group_intervention as group_intervention
    from icl_circuits.heads import log_prob_increase as log_prob_increase
    from icl_circuits.heads import position_increase as position_increase
    from icl_circuits.heads import random_heads as random_heads
    from icl_circuits.heads import select_heads as select_heads
    from icl_circuits.heads import zero_each_head as zero_each_head
    from icl_circuits.interventions import Embedding as Embedding
    from icl_circuits.interventions import KnockOut as KnockOut
    from icl_circuits.interventions import Mean as Mean
    from icl_circuits.interventions import Mlp as Mlp
    from icl_circuits.interventions import Patch as Patch
    from icl_circuits.interventions import ReplaceHeads as ReplaceHeads
    from icl_circuits.interventions import ReplaceScores as ReplaceScores
    from icl_circuits.interventions import Resample as Resample
    from icl_circuits.interventions import Run as Run
    from icl_circuits.interventions import ScaleScores as ScaleScores
    from icl_circuits.interventions import WithoutPosition as WithoutPosition
    from icl_circuits.interventions import Zero as Zero
    from icl_circuits.interventions import ZeroHeads as ZeroHeads
    from icl_circuits.interventions import agreement as agreement
    from icl_circuits.interventions import answer_logits as answer_logits
    from icl_circuits.interventions import attribute as attribute
    from icl_circuits.interventions import attribute_paths as attribute_paths
    from icl_circuits.interventions import intervene as intervene
    from icl_circuits.interventions import mean_z as mean_z
    from icl_circuits.interventions import path_patch as path_patch
    from icl_circuits.interventions import run_each as run_each
    from icl_circuits.interventions import sweep as sweep
    from icl_circuits.models import Head as Head
    from icl_circuits.models import all_heads as all_heads
    from icl_circuits.models import load_model as load_model
    from icl_circuits.prompts import encode as encode
    from icl_circuits.prompts import load_rows as load_rows
    from icl_circuits.prompts import sample_prompts as sample_prompts
    from icl_circuits.towers import knock_out_flow as knock_out_flow
    from icl_circuits.towers import label_features as label_features
    from icl_circuits.towers import metric_learning as metric_learning
    from icl_circuits.towers import ov_circuits as ov_circuits
    from icl_circuits.towers import probe_flow as probe_flow
    from icl_circuits.towers import qk_spectrum as qk_spectrum
    from icl_circuits.towers import reversal as reversal
    from icl_circuits.towers import tower_reads as tower_reads
    from icl_circuits.towers import tower_tokens as tower_tokens
    from icl_circuits.towers import two_towers as two_towers
    from icl_circuits.towers import value_output as value_output

_HOMES = {
    "biases": ("add_minority_values", "majority_bias", "mitigation", "recency_bias"),
    "circuits": ("Circuit", "evaluate_circuit", "find_circuit", "minimality", "score_edges"),
    "errors": ("InputError",),
    "heads": (
        "group_intervention",
        "log_prob_increase",
        "position_increase",
        "random_heads",
        "select_heads",
        "zero_each_head",
    ),
    "interventions": (
        "Embedding",
        "KnockOut",
        "Mean",
        "Mlp",
        "Patch",
        "ReplaceHeads",
        "ReplaceScores",
        "Resample",
        "Run",
        "ScaleScores",
        "WithoutPosition",
        "Zero",
        "ZeroHeads",
        "agreement",
        "answer_logits",
        "attribute",
        "attribute_paths",
        "intervene",
        "mean_z",
        "path_patch",
        "run_each",
        "sweep",
    ),
    "models": ("Head", "all_heads", "load_model"),
    "prompts": ("encode", "load_rows", "sample_prompts"),
    "towers": (
        "knock_out_flow",
        "label_features",
        "metric_learning",
        "ov_circuits",
        "probe_flow",
        "qk_spectrum",
        "reversal",
        "tower_reads",
        "tower_tokens",
        "two_towers",
        "value_output",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'icl_circuits' has no attribute {name!r}")
    return getattr(importlib.import_module(f"icl_circuits.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
