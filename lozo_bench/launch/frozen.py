"""Leaves all that is imported before this module out of garbage collections.

A collection looks at every object. Those of torch and transformers, half a million, take it 0.3 s,
and none of them is ever garbage. In the fork server, looking at them would also copy the memory
that the cells share.
"""

import atexit
import gc

gc.freeze()
atexit.register(gc.unfreeze)  # some libraries complain about what is left at the end
