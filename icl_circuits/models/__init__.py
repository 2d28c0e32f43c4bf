"""Any TransformerLens model: load it, and ask it what an analysis needs to know."""

from icl_circuits.models.block import (
    Block as Block,
)
from icl_circuits.models.block import (
    NotAlgebraError as NotAlgebraError,
)
from icl_circuits.models.block import (
    read_block as read_block,
)
from icl_circuits.models.facts import (
    has_mlp as has_mlp,
)
from icl_circuits.models.facts import (
    hook_point as hook_point,
)
from icl_circuits.models.facts import (
    hook_points as hook_points,
)
from icl_circuits.models.facts import (
    is_parallel as is_parallel,
)
from icl_circuits.models.facts import (
    kv_head as kv_head,
)
from icl_circuits.models.facts import (
    mlp_sites as mlp_sites,
)
from icl_circuits.models.facts import (
    n_kv_heads as n_kv_heads,
)
from icl_circuits.models.facts import (
    require_additive_heads as require_additive_heads,
)
from icl_circuits.models.facts import (
    require_layer as require_layer,
)
from icl_circuits.models.facts import (
    require_live_scores as require_live_scores,
)
from icl_circuits.models.facts import (
    require_per_head_z as require_per_head_z,
)
from icl_circuits.models.facts import (
    scores_are_live as scores_are_live,
)
from icl_circuits.models.facts import (
    unmasked as unmasked,
)
from icl_circuits.models.hooks import (
    Hook as Hook,
)
from icl_circuits.models.hooks import (
    HookPair as HookPair,
)
from icl_circuits.models.hooks import (
    attached as attached,
)
from icl_circuits.models.lens import (
    Backend as Backend,
)
from icl_circuits.models.lens import (
    LensModel as LensModel,
)
from icl_circuits.models.lens import (
    Processing as Processing,
)
from icl_circuits.models.lens import (
    backend_of as backend_of,
)
from icl_circuits.models.lens import (
    device_of as device_of,
)
from icl_circuits.models.load import (
    ModelCard as ModelCard,
)
from icl_circuits.models.load import (
    load_model as load_model,
)
from icl_circuits.models.load import (
    model_card as model_card,
)
from icl_circuits.models.load import (
    provenance as provenance,
)
from icl_circuits.models.norms import (
    LOGITS_AT_ONCE as LOGITS_AT_ONCE,
)
from icl_circuits.models.norms import (
    Norm as Norm,
)
from icl_circuits.models.norms import (
    Readout as Readout,
)
from icl_circuits.models.norms import (
    norm_of as norm_of,
)
from icl_circuits.models.norms import (
    readout as readout,
)
from icl_circuits.models.precision import (
    at_least_float32 as at_least_float32,
)
from icl_circuits.models.precision import (
    engine_tolerance as engine_tolerance,
)
from icl_circuits.models.precision import (
    identity_tolerance as identity_tolerance,
)
from icl_circuits.models.sites import (
    ATTENTION_SITES as ATTENTION_SITES,
)
from icl_circuits.models.sites import (
    HEAD_SITES as HEAD_SITES,
)
from icl_circuits.models.sites import (
    LAYER_SITES as LAYER_SITES,
)
from icl_circuits.models.sites import (
    HeadSite as HeadSite,
)
from icl_circuits.models.sites import (
    LayerSite as LayerSite,
)
from icl_circuits.models.sites import (
    Place as Place,
)
from icl_circuits.models.sites import (
    ReadSite as ReadSite,
)
from icl_circuits.models.sites import (
    Site as Site,
)
from icl_circuits.models.sites import (
    hook_name as hook_name,
)
from icl_circuits.models.weights import (
    AttentionWeights as AttentionWeights,
)
from icl_circuits.models.weights import (
    MlpWeights as MlpWeights,
)
from icl_circuits.models.weights import (
    attention_weights as attention_weights,
)
from icl_circuits.models.weights import (
    factored as factored,
)
from icl_circuits.models.weights import (
    mlp_weights as mlp_weights,
)
