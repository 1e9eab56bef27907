# `os` as ESP32 has it: without the PC's environment and shell, and without the place where frozen modules lie.
# Everything else is the interpreter's own, looked up when asked for so that it takes no heap.
import sys

import uos
from micropython import const

_ROM = "rom"
_DIRECTORY = const(0x4000)


def ilistdir(path=""):
    if path != "/" and (path or uos.getcwd() != "/"):
        return uos.ilistdir(path)
    return (entry for entry in uos.ilistdir(path) if entry[0] != _ROM or entry[1] != _DIRECTORY)


def listdir(path=""):
    return [entry[0] for entry in ilistdir(path)]


def uname():
    from collections import namedtuple

    release = ".".join(str(part) for part in sys.implementation[1][:3])
    return namedtuple("uname", ("sysname", "nodename", "release", "version", "machine"))(
        "esp32", "esp32", release, sys.version.split("; ", 1)[1], "virtual " + uos.getenv("BOARD_NAME")
    )


def __getattr__(name):
    if name in ("system", "getenv", "putenv", "unsetenv", "errno"):
        raise AttributeError(name)
    return getattr(uos, name)
