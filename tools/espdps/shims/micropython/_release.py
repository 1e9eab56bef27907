# Which release of MicroPython the frozen modules of these stand-ins are like: 24 for 1.24.
# BOARD_RELEASE ("1.24" to "1.29") says so; else it is the interpreter's own, as firmware freezes what its release has.
import sys
from uos import getenv

minor = int((getenv("BOARD_RELEASE") or ".%d" % sys.implementation[1][1]).split(".")[1])
del sys.modules["_release"]  # asked once by each module, and not to lie in the heap
