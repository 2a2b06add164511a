"""Imports what a run needs without garbage collections, and leaves it out of later ones.

A collection looks at every object. Those of torch and transformers, half a million, take it 0.3 s,
and none of them is ever garbage; the collections while they are imported take 1 to 2 s. In the fork
server, looking at them would also copy the memory that the cells share.
"""

import atexit
import gc

__all__ = ["run"]
_enabled = gc.isenabled()
gc.disable()
try:
    from lozo_bench.training import run
finally:
    gc.freeze()
    if _enabled:
        gc.enable()
atexit.register(gc.unfreeze)  # some libraries complain about what is left at the end
