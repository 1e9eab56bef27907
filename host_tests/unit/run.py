"""Runs the test functions of this folder where there is no pytest: micropython run.py [word in test name ...].

It must never end with status 0 if no test ran."""

import gc
import os
import sys

try:
    from sys import print_exception
except ImportError:  # CircuitPython has it where Python has it
    from traceback import print_exception

here = __file__[: __file__.rfind("/")] if "/" in __file__ else "."
sys.path.insert(0, here)
if sys.implementation.name == "micropython":  # elsewhere whoever runs this knows where they are
    sys.path[1:1] = [here + "/../../firmware", here + "/../../tools/espdps/shims/micropython"]
if sys.implementation.name == "circuitpython":
    # A test has settings of its own, and there is one settings.toml.
    import json

    from aziot import identity

    def table(path):
        with open(path) as f:
            return json.load(f)

    identity.table = table

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
