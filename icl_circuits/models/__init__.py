"""Any TransformerLens model: load it, and ask it what an analysis needs to know."""

from icl_circuits.models.block import (
    Block as Block,
    NotAlgebraError as NotAlgebraError,
)
from icl_circuits.models.build import (
    default_device as default_device,
)
from icl_circuits.models.facts import (
    computation_of as computation_of,
    has_mlp as has_mlp,
    hook_point as hook_point,
    hook_points as hook_points,
    hooks_set_aside as hooks_set_aside,
    is_parallel as is_parallel,
    kv_head as kv_head,
    kv_heads as kv_heads,
    mlp_sites as mlp_sites,
    n_kv_heads as n_kv_heads,
    probe_tokens as probe_tokens,
    require_alike as require_alike,
    require_causal as require_causal,
    require_layer as require_layer,
    require_live_scores as require_live_scores,
    require_one_device as require_one_device,
    require_per_head_z as require_per_head_z,
    scores_are_live as scores_are_live,
    unmasked as unmasked,
)
from icl_circuits.models.gguf_files import (
    parsed_once as parsed_once,
)
from icl_circuits.models.hooks import (
    Hook as Hook,
    HookPair as HookPair,
    attached as attached,
)
from icl_circuits.models.identities import (
    CLAIMS as CLAIMS,
    Identity as Identity,
    require_identities as require_identities,
    require_identities_of_model as require_identities_of_model,
)
from icl_circuits.models.lens import (
    Backend as Backend,
    LensModel as LensModel,
    Processing as Processing,
    TextModel as TextModel,
    backend_of as backend_of,
    device_of as device_of,
    free_bytes as free_bytes,
)
from icl_circuits.models.load import (
    ModelCard as ModelCard,
    load_model as load_model,
    model_card as model_card,
    provenance as provenance,
    require_device as require_device,
)
from icl_circuits.models.memory import (
    TOKENS_AT_ONCE as TOKENS_AT_ONCE,
    ModelShape as ModelShape,
    prompts_at_once as prompts_at_once,
)
from icl_circuits.models.norms import (
    LOGITS_AT_ONCE as LOGITS_AT_ONCE,
    Norm as Norm,
    Readout as Readout,
    Standing as Standing,
    block_norms as block_norms,
    readout as readout,
)
from icl_circuits.models.outlines import (
    Outline as Outline,
    outline as outline,
)
from icl_circuits.models.precision import (
    at_least_float32 as at_least_float32,
    engine_tolerance as engine_tolerance,
    rows_agree as rows_agree,
    step_tolerance as step_tolerance,
)
from icl_circuits.models.reading import (
    read_block as read_block,
)
from icl_circuits.models.series import (
    OWN_BETWEEN as OWN_BETWEEN,
    OWN_FILES as OWN_FILES,
    OWN_QUESTION as OWN_QUESTION,
    SMALL as SMALL,
    OwnTexts as OwnTexts,
    checkpoint_folder as checkpoint_folder,
    checkpoints as checkpoints,
    own_texts as own_texts,
    series_folder as series_folder,
)
from icl_circuits.models.sites import (
    ATTENTION_SITES as ATTENTION_SITES,
    HEAD_SITES as HEAD_SITES,
    LAYER_SITES as LAYER_SITES,
    HeadSite as HeadSite,
    LayerSite as LayerSite,
    Place as Place,
    ReadSite as ReadSite,
    Site as Site,
    hook_name as hook_name,
)
from icl_circuits.models.told_apart import (
    files_of as files_of,
    identity as identity,
    note_weights as note_weights,
    tokenizer_sha256 as tokenizer_sha256,
    weight_versions as weight_versions,
    weights_sha256 as weights_sha256,
)
from icl_circuits.models.weights import (
    AttentionWeights as AttentionWeights,
    Key as Key,
    MlpWeights as MlpWeights,
    attention_weights as attention_weights,
    factored as factored,
    mlp_weights as mlp_weights,
)
