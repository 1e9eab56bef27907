"""Lets CPython import the firmware: the same files, over the stand-ins for what a PC lacks."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
for folder in (HERE / "unit", HERE / "shims" / "cpython", HERE.parent / "firmware"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
