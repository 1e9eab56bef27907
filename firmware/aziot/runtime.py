# What runtimes have under other names. Everything else in this library that differs is in stream, mqtt and faults.
import json
import time  # noqa: F401 for clock
from hashlib import sha256  # noqa: F401 for store and keys


def table(path):
    """What a settings file says, a dict if it is well-formed. OSError or ValueError."""
    with open(path) as f:
        return json.load(f)
