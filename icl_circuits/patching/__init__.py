"""The exact engine: sweeps of patches, path patching, and attribution, which guesses both."""

from icl_circuits.patching.agreement import (
    Agreement as Agreement,
)
from icl_circuits.patching.agreement import (
    agreement as agreement,
)
from icl_circuits.patching.attribution import (
    attribute as attribute,
)
from icl_circuits.patching.attribution import (
    attribute_paths as attribute_paths,
)
from icl_circuits.patching.cells import (
    Cell as Cell,
)
from icl_circuits.patching.cells import (
    Sweep as Sweep,
)
from icl_circuits.patching.cells import (
    sweep as sweep,
)
from icl_circuits.patching.engine import (
    Variant as Variant,
)
from icl_circuits.patching.engine import (
    Variants as Variants,
)
from icl_circuits.patching.engine import (
    plain_metric as plain_metric,
)
from icl_circuits.patching.engine import (
    run_each as run_each,
)
from icl_circuits.patching.paths import (
    Paths as Paths,
)
from icl_circuits.patching.paths import (
    path_patch as path_patch,
)
from icl_circuits.patching.routes import (
    EdgeKind as EdgeKind,
)
from icl_circuits.patching.routes import (
    NormKind as NormKind,
)
