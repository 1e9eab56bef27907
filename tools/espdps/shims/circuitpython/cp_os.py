"""CircuitPython's os: paths of the drive, getenv() of settings.toml, and FAT, on which nothing is replaced by rename()."""

from __future__ import annotations

import errno
import os
import sys

import cp_machine

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

sep = "/"
urandom = os.urandom
environ = None  # there is none


def getenv(key: str, default: str | int | None = None) -> str | int | None:
    """Text or number, from before the first [table]."""
    try:
        with open(f"{cp_machine.drive}/settings.toml", "rb") as f:
            value = tomllib.load(f).get(key, default)
    except OSError:
        return default
    if value is not default and (isinstance(value, bool) or not isinstance(value, (str, int))):
        raise ValueError(f"Invalid value for {key}")
    return value


def _may_write() -> None:
    if not cp_machine.writable:
        raise OSError(errno.EROFS, "Read-only filesystem")


def rename(old: str, new: str) -> None:
    _may_write()
    if os.path.exists(cp_machine.path(new)):
        raise OSError(errno.EEXIST, "File exists")
    os.rename(cp_machine.path(old), cp_machine.path(new))


def remove(path: str) -> None:
    _may_write()
    os.remove(cp_machine.path(path))


def mkdir(path: str) -> None:
    _may_write()
    os.makedirs(cp_machine.path(path))


def rmdir(path: str) -> None:
    _may_write()
    os.rmdir(cp_machine.path(path))


def stat(path: str) -> tuple[int, ...]:
    return tuple(os.stat(cp_machine.path(path)))


def listdir(path: str = "/") -> list[str]:
    return os.listdir(cp_machine.path(path))
