"""A folder that keeps the finished steps of runs, whole or not at all, so that none is computed twice."""

from icl_circuits.store.code import code_version as code_version
from icl_circuits.store.codec import (
    about_of as about_of,
    digest as digest,
    packed as packed,
    unpacked as unpacked,
)
from icl_circuits.store.store import (
    MARK as MARK,
    Kept as Kept,
    Listed as Listed,
    Store as Store,
    default_folder as default_folder,
)
