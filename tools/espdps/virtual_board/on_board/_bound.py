# What the process may take besides all that it has now: TLS allocates outside of the heap, as on a chip.
# Imported while the PC's filesystem is there, by a board with BOARD_SYSTEM_HEAP (bytes) only.
import sys
from array import array

import ffi
from uos import getenv

with open("/proc/self/status") as _file:
    _has = [int(line.split()[1]) << 10 for line in _file if line.startswith("VmData")][0]
_limit = array("L", (_has + int(getenv("BOARD_SYSTEM_HEAP")), -1))
ffi.open(None).func("i", "setrlimit", "ip")(2, _limit)  # RLIMIT_DATA
del sys.modules["_bound"]
