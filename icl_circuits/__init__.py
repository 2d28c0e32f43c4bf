"""Mechanistic interpretability of in-context learning, on any model TransformerLens loads.

The names stand in `__init__.pyi`, once. They are imported on first use, so that `import icl_circuits` and
`icl-circuits --help` stay quick.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
