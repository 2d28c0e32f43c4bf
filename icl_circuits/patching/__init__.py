"""The exact engine: sweeps of patches, path patching, and attribution, which guesses both."""

from icl_circuits.patching.attribution import (
    attribute as attribute,
    attribute_paths as attribute_paths,
)
from icl_circuits.patching.backward import (
    Gradients as Gradients,
    gradients as gradients,
)
from icl_circuits.patching.cells import (
    Cell as Cell,
    Sweep as Sweep,
    sweep as sweep,
)
from icl_circuits.patching.engine import (
    Variant as Variant,
    Variants as Variants,
    run_each as run_each,
)
from icl_circuits.patching.hooked import (
    run_hooked as run_hooked,
)
from icl_circuits.patching.kept import (
    KEPT_TOKENS as KEPT_TOKENS,
    keeping_runs as keeping_runs,
)
from icl_circuits.patching.paths import (
    Paths as Paths,
    path_patch as path_patch,
)
from icl_circuits.patching.routes import (
    EdgeKind as EdgeKind,
    NormKind as NormKind,
)
from icl_circuits.patching.trust import (
    Agreement as Agreement,
    agreement as agreement,
)
