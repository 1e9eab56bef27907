"""The one exception of the host tools: what is wrong, what to do, which exit code.
Its texts end up on a screen, so no key, token or password may ever get into one."""

from __future__ import annotations

import errno
from os import PathLike

FAILED = 1
WRONG_USE = 2
REFUSED = 3

# what to do about an error of the system
NEXT = {
    errno.ENOENT: "is the path right? ls -l shows what is there",
    errno.EACCES: "give your user the right to it (ls -l, chmod, chown), or take another path",
    errno.EPERM: "its owner can do that (ls -l), or take another path",
    errno.ENOSPC: "make room on that disk (df -h), then run this again",
    errno.EDQUOT: "your quota of that disk is used up: remove something of yours, then run this again",
    errno.EROFS: "take a path on a disk that can be written to, or mount this one so",
    errno.EISDIR: "that is a folder: name a file in it",
    errno.ENOTDIR: "a folder is wanted where a file is: name another path, or remove the file",
    errno.EEXIST: "take another name, or remove what is there",
    errno.ENOTEMPTY: "take another name, or remove what is there",
    errno.ENAMETOOLONG: "take a shorter name",
    errno.ELOOP: "its symbolic links lead in a circle: ls -l shows where to",
    errno.EMFILE: "raise the limit of open files: ulimit -n 4096",
    errno.ENFILE: "too much runs on this machine: end something, then run this again",
    errno.EBUSY: "another program has it: end that, then run this again",
    errno.EIO: "the disk or its cable fails (dmesg says more): take another one",
}
NEXT_ELSE = "run it again; if it stays so, take a path on another disk"


class ToolError(Exception):
    """Something a user has to know. `message` names the thing at fault, `hint` says what to do about it."""

    def __init__(self, message: str, hint: str, exit_code: int = FAILED) -> None:
        super().__init__(message, hint, exit_code)  # all of them, or it could not come out of a worker process
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return self.message

    @property
    def line(self) -> str:
        """Message and hint, for where there is room for one line."""
        return f"{self.message}: {self.hint}"


def of_system(
    error: OSError, path: str | PathLike[str] | None = None, *, after: str = "", exit_code: int = FAILED
) -> ToolError:
    """What the system says of `path`, or of the path that it names, in its words; `after`: what to know besides."""
    where = path or error.filename or "this machine"
    words = error.strerror or str(error)
    told = ToolError(f"{where}: {words}", NEXT.get(error.errno or 0, NEXT_ELSE), exit_code)
    if after:
        told.hint += f"; {after}"
    return told
