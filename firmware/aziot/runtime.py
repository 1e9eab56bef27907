# What not every runtime has under the same name. CircuitPython has another of these, and modules of its own with the
# names and the interfaces of MicroPython's tls and umqtt.simple.
# ruff: noqa: F401
import gc
import json
import os
import socket
import time
from hashlib import sha256
from io import IOBase
from select import poll


COPIES = 1  # of a message that MQTT makes while it reads it


def table(path):
    """What a settings file says, a dict if it is well-formed. OSError or ValueError."""
    with open(path) as f:
        return json.load(f)


def read(path, size=0):
    # In one piece of the right size: read() without one grows, and the heap may have no room for two.
    gc.collect()
    with open(path, "rb") as f:
        return f.read(size or os.stat(path)[6])


def hand(load, path, size, *others):
    """Files for TLS, which takes what is in them: of the first one as many bytes as size says, 0 for all."""
    load(read(path, size), *map(read, others))
