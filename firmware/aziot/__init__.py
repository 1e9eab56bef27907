# Azure identity for small boards: DPS registration, issued certificates, IoT Hub.
# None of its modules is imported here, so that an application loads only what it uses.
import gc
import sys

__version__ = "0.1.0"


def forget(*names):
    # The modules of a stage that is over. Their bytecode lies in the heap, and no stage needs another's.
    package = sys.modules["aziot"]
    for name in names:
        if sys.modules.pop("aziot." + name, None):
            delattr(package, name)
    gc.collect()
