"""Every public name of the package, in the room it comes from."""

from .biases import (
    add_minority_values as add_minority_values,
    majority_bias as majority_bias,
    mitigation as mitigation,
    recency_bias as recency_bias,
)
from .circuits import (
    Circuit as Circuit,
    cut_edges as cut_edges,
    evaluate_circuit as evaluate_circuit,
    find_circuit as find_circuit,
    minimality as minimality,
    score_edges as score_edges,
)
from .development import (
    co_timing as co_timing,
    develop as develop,
    emergence as emergence,
)
from .errors import (
    InputError as InputError,
    Unfit as Unfit,
)
from .heads import (
    concept_scores as concept_scores,
    function_vector_heads as function_vector_heads,
    group_intervention as group_intervention,
    induction_scores as induction_scores,
    log_prob_increase as log_prob_increase,
    overlap as overlap,
    position_increase as position_increase,
    random_heads as random_heads,
    score_heads as score_heads,
    select_heads as select_heads,
    top_heads as top_heads,
    zero_each_head as zero_each_head,
    zero_families as zero_families,
)
from .interventions import (
    Interchange as Interchange,
    KnockOut as KnockOut,
    Mean as Mean,
    Patch as Patch,
    ReplaceHeads as ReplaceHeads,
    ReplaceScores as ReplaceScores,
    Resample as Resample,
    ScaleScores as ScaleScores,
    WithoutPosition as WithoutPosition,
    Zero as Zero,
    ZeroHeads as ZeroHeads,
    ZeroNeurons as ZeroNeurons,
    intervene as intervene,
    mean_z as mean_z,
)
from .levels import (
    icl_levels as icl_levels,
    level_tasks as level_tasks,
    loss_reduction as loss_reduction,
    row_task as row_task,
)
from .models import (
    checkpoints as checkpoints,
    load_model as load_model,
)
from .patching import (
    agreement as agreement,
    attribute as attribute,
    attribute_paths as attribute_paths,
    path_patch as path_patch,
    run_each as run_each,
    sweep as sweep,
)
from .prompts import (
    PromptBatch as PromptBatch,
    TokenBatch as TokenBatch,
    encode as encode,
    load_facts as load_facts,
    load_rows as load_rows,
    load_tasks as load_tasks,
    pairs as pairs,
    sample_prompts as sample_prompts,
    task_prompts as task_prompts,
    token_batch as token_batch,
)
from .relations import (
    head_probe as head_probe,
    in_sentences as in_sentences,
    load_conllu as load_conllu,
    load_triplets as load_triplets,
    parse_dependencies as parse_dependencies,
    relation_batch as relation_batch,
    relation_index as relation_index,
    with_letters as with_letters,
    without_words as without_words,
)
from .residual import (
    Edge as Edge,
    Embedding as Embedding,
    Head as Head,
    Mlp as Mlp,
    Neuron as Neuron,
    all_heads as all_heads,
    answer_logits as answer_logits,
)
from .subvalues import (
    added_before_softmax as added_before_softmax,
    added_together as added_together,
    best_by_each_method as best_by_each_method,
    coefficient_split as coefficient_split,
    head_neuron_tokens as head_neuron_tokens,
    heads_by_type as heads_by_type,
    interpolation as interpolation,
    known_facts as known_facts,
    layer_positions as layer_positions,
    neuron_tokens as neuron_tokens,
    query_importance as query_importance,
    random_neurons as random_neurons,
    score_neurons as score_neurons,
    tokens_through_head as tokens_through_head,
    top_neurons as top_neurons,
    zero_each_neuron as zero_each_neuron,
    zero_neurons as zero_neurons,
)
from .towers import (
    knock_out_flow as knock_out_flow,
    label_features as label_features,
    metric_learning as metric_learning,
    neuron_reads as neuron_reads,
    ov_circuits as ov_circuits,
    probe_flow as probe_flow,
    qk_spectrum as qk_spectrum,
    reversal as reversal,
    tower_reads as tower_reads,
    tower_tokens as tower_tokens,
    two_towers as two_towers,
    value_output as value_output,
)
