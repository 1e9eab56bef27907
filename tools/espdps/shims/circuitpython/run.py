"""Runs a CIRCUITPY drive as CircuitPython would, on CPython: run.py DRIVE [PROGRAM [WORD...]]

boot.py first, then code.py or PROGRAM, which get what CircuitPython has and no more: see README.md. The console is
standard output; a reset of the microcontroller starts this process anew. It must never lend the program anything that
a board lacks."""

from __future__ import annotations
import __future__

import builtins
import errno
import importlib.machinery
import io
import os
import runpy
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Modules of CircuitPython on an ESP32-S2 or S3 that the firmware and its libraries may use (support matrix of its
# documentation); those which CPython's own would be too much for are in this folder.
BUILTIN = set(
    "array asyncio binascii board builtins digitalio errno gc hashlib io json microcontroller micropython os random rtc select "
    "socketpool ssl storage struct supervisor sys time traceback watchdog wifi __future__ _thread".split()
)
OURS = "board digitalio gc hashlib microcontroller micropython os rtc socketpool ssl storage supervisor time watchdog wifi".split()


def main() -> None:
    drive, *words = [os.path.realpath(sys.argv[1]), *sys.argv[2:]]
    sys.path.insert(0, str(HERE))
    import cp_machine

    cp_machine.start(drive, sys.argv)
    modules = {name: __import__(f"cp_{name}") for name in OURS}
    del sys.path[0]
    real_import, real_open = builtins.__import__, builtins.open

    def of_drive(namespace: dict[str, Any] | None) -> bool:
        return str((namespace or {}).get("__file__", "")).startswith(drive)

    def importing(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:  # the signature of __import__
        top = name.partition(".")[0]
        if level == 0 and of_drive(globals):
            if top in modules:
                return modules[top]
            if top == "socket" and globals["__name__"] == "plain":  # the other side of a unit test's connection
                return real_import(name, globals, locals, fromlist, level)
            if top not in BUILTIN and not any(
                Path(folder, top + end).exists() for folder in sys.path[:3] for end in ("", ".py")
            ):
                raise ImportError(f"no module named '{name}'")
        return real_import(name, globals, locals, fromlist, level)

    def opening(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if isinstance(path, str) and path.startswith("/") and not path.startswith((drive, sys.prefix, sys.base_prefix)):
            if set(mode) & set("wax+") and not cp_machine.writable:
                raise OSError(errno.EROFS, "Read-only filesystem")
            path = drive + path
        return real_open(path, mode, *args, **kwargs)

    def compiling(_self: Any, data: bytes, path: str, **_: Any) -> Any:
        # Annotations are not looked at there.
        return compile(data, path, "exec", __future__.annotations.compiler_flag, dont_inherit=True)

    importlib.machinery.SourceFileLoader.source_to_code = compiling  # type: ignore[method-assign,assignment]
    sys.dont_write_bytecode = True
    sys.path[:0] = [drive, f"{drive}/lib"]
    sys.implementation.name = "circuitpython"
    builtins.__import__ = importing
    builtins.open = io.open = opening
    try:
        if not words and os.path.exists(f"{drive}/boot.py"):
            runpy.run_path(f"{drive}/boot.py", run_name="__main__")
        program, sys.argv = (words[0], words) if words else (f"{drive}/code.py", [f"{drive}/code.py"])
        cp_machine.writable = cp_machine.writable or bool(words)
        runpy.run_path(program, run_name="__main__")
    except KeyboardInterrupt:
        pass


main()
