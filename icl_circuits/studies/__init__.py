"""What can be run. `STUDIES` is the only list of it: commands, figures, files and pages follow from that.

The names stand in `__init__.pyi`, and are imported on first use, so that listing the studies stays quick.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
