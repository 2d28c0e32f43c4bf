"""Every public name of the package, in the room it comes from."""

from .biases import (
    add_minority_values as add_minority_values,
)
from .biases import (
    majority_bias as majority_bias,
)
from .biases import (
    mitigation as mitigation,
)
from .biases import (
    recency_bias as recency_bias,
)
from .circuits import (
    Circuit as Circuit,
)
from .circuits import (
    evaluate_circuit as evaluate_circuit,
)
from .circuits import (
    find_circuit as find_circuit,
)
from .circuits import (
    minimality as minimality,
)
from .circuits import (
    score_edges as score_edges,
)
from .errors import (
    InputError as InputError,
)
from .errors import (
    Unfit as Unfit,
)
from .heads import (
    group_intervention as group_intervention,
)
from .heads import (
    random_heads as random_heads,
)
from .heads import (
    select_heads as select_heads,
)
from .heads import (
    zero_each_head as zero_each_head,
)
from .interventions import (
    Interchange as Interchange,
)
from .interventions import (
    KnockOut as KnockOut,
)
from .interventions import (
    Mean as Mean,
)
from .interventions import (
    Patch as Patch,
)
from .interventions import (
    ReplaceHeads as ReplaceHeads,
)
from .interventions import (
    ReplaceScores as ReplaceScores,
)
from .interventions import (
    Resample as Resample,
)
from .interventions import (
    ScaleScores as ScaleScores,
)
from .interventions import (
    WithoutPosition as WithoutPosition,
)
from .interventions import (
    Zero as Zero,
)
from .interventions import (
    ZeroHeads as ZeroHeads,
)
from .interventions import (
    intervene as intervene,
)
from .interventions import (
    mean_z as mean_z,
)
from .models import (
    load_model as load_model,
)
from .patching import (
    agreement as agreement,
)
from .patching import (
    attribute as attribute,
)
from .patching import (
    attribute_paths as attribute_paths,
)
from .patching import (
    path_patch as path_patch,
)
from .patching import (
    run_each as run_each,
)
from .patching import (
    sweep as sweep,
)
from .prompts import (
    PromptBatch as PromptBatch,
)
from .prompts import (
    TokenBatch as TokenBatch,
)
from .prompts import (
    encode as encode,
)
from .prompts import (
    load_rows as load_rows,
)
from .prompts import (
    pairs as pairs,
)
from .prompts import (
    sample_prompts as sample_prompts,
)
from .prompts import (
    token_batch as token_batch,
)
from .residual import (
    Edge as Edge,
)
from .residual import (
    Embedding as Embedding,
)
from .residual import (
    Head as Head,
)
from .residual import (
    Mlp as Mlp,
)
from .residual import (
    Neuron as Neuron,
)
from .residual import (
    all_heads as all_heads,
)
from .residual import (
    answer_logits as answer_logits,
)
from .residual import (
    log_prob_increase as log_prob_increase,
)
from .residual import (
    position_increase as position_increase,
)
from .towers import (
    knock_out_flow as knock_out_flow,
)
from .towers import (
    label_features as label_features,
)
from .towers import (
    metric_learning as metric_learning,
)
from .towers import (
    ov_circuits as ov_circuits,
)
from .towers import (
    probe_flow as probe_flow,
)
from .towers import (
    qk_spectrum as qk_spectrum,
)
from .towers import (
    reversal as reversal,
)
from .towers import (
    tower_reads as tower_reads,
)
from .towers import (
    tower_tokens as tower_tokens,
)
from .towers import (
    two_towers as two_towers,
)
from .towers import (
    value_output as value_output,
)
