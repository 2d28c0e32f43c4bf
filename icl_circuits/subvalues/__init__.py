"""Which neurons hold a fact: subvalues, scored exactly by what they add to log p(answer) (arXiv 2312.12141).

What the papers call a subvalue is what the field calls a neuron's output direction.
"""

from icl_circuits.subvalues.effects import (
    TARGET_MEASURES as TARGET_MEASURES,
    NeuronEffects as NeuronEffects,
    random_neurons as random_neurons,
    target_measures as target_measures,
    zero_neurons as zero_neurons,
)
from icl_circuits.subvalues.knowledge import (
    HeadsByType as HeadsByType,
    heads_by_type as heads_by_type,
)
from icl_circuits.subvalues.known import (
    KnownFacts as KnownFacts,
    known_facts as known_facts,
    require_per_type as require_per_type,
)
from icl_circuits.subvalues.methods import (
    METHODS as METHODS,
    best_by_each_method as best_by_each_method,
)
from icl_circuits.subvalues.positions import (
    LayerPositions as LayerPositions,
    layer_positions as layer_positions,
)
from icl_circuits.subvalues.query import (
    QueryImportance as QueryImportance,
    query_importance as query_importance,
)
from icl_circuits.subvalues.reading import (
    Promoted as Promoted,
    head_neuron_tokens as head_neuron_tokens,
    neuron_tokens as neuron_tokens,
    promoted as promoted,
    tokens_through_head as tokens_through_head,
)
from icl_circuits.subvalues.scores import (
    NeuronScores as NeuronScores,
    score_neurons as score_neurons,
)
from icl_circuits.subvalues.segments import (
    AddedTogether as AddedTogether,
    Interpolation as Interpolation,
    added_before_softmax as added_before_softmax,
    added_together as added_together,
    interpolation as interpolation,
)
from icl_circuits.subvalues.sets import (
    Concentration as Concentration,
    concentration as concentration,
    layer_counts as layer_counts,
    query_only_share as query_only_share,
    shared_neurons as shared_neurons,
)
from icl_circuits.subvalues.split import (
    CoefficientSplit as CoefficientSplit,
    coefficient_split as coefficient_split,
)
from icl_circuits.subvalues.top import (
    TopNeurons as TopNeurons,
    top_neurons as top_neurons,
)
from icl_circuits.subvalues.trust import (
    PREDICTORS as PREDICTORS,
    ZeroedAlone as ZeroedAlone,
    zero_each_neuron as zero_each_neuron,
)
from icl_circuits.subvalues.writers import (
    Addresses as Addresses,
    Kind as Kind,
    n_neurons as n_neurons,
)
