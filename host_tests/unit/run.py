"""Runs the test functions of this folder where there is no pytest: micropython run.py [word in test name ...].

It must never end with status 0 if no test ran."""

import gc
import os
import sys

here = __file__[: __file__.rfind("/")] if "/" in __file__ else "."
if sys.implementation.name != "circuitpython":  # there the firmware is on the drive
    sys.path[:0] = [here, here + "/../../firmware", here + "/../shims/micropython"]

from aziot.runtime import print_exception  # noqa: E402

passed = failed = 0
for name in sorted(os.listdir(here)):
    if not (name.startswith("test_") and name.endswith(".py")):
        continue
    module = __import__(name[:-3])
    for test in sorted(dir(module)):
        if not test.startswith("test_") or not all(word in test for word in sys.argv[1:]):
            continue
        gc.collect()
        try:
            getattr(module, test)()
            passed += 1
        except Exception as e:
            failed += 1
            print("FAILED %s:%s" % (name, test))
            print_exception(e)
    del sys.modules[name[:-3]]
print("%d passed, %d failed" % (passed, failed))
sys.exit(1 if failed or not passed else 0)
