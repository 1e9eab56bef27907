# The first thing a virtual board runs: takes the PC's filesystem away and mounts the board's flash.
# It must leave nothing behind that a program could meet: no name in __main__, no argument, no open path.
import sys

import _chip
import ffi
import uctypes
import vfs
from _flash import BLOCK, Flash
from uos import getenv

_MEMORY_SIZE = len(_chip.memory)


def _lasting_memory(path):
    # Shared with the file: what the program writes is there at the next start.
    with open(path, "r+b") as file:
        map = ffi.open(None).func("P", "mmap", "PLiiil")
        return uctypes.bytearray_at(map(0, _MEMORY_SIZE, 3, 1, file.fileno(), 0), _MEMORY_SIZE)


def _mount(path):
    file = open(path, "r+b")  # noqa: SIM115 - open until the end
    flash = Flash(file, file.seek(0, 2) // BLOCK)
    file.seek(0)
    blank = file.read(16) == b"\xff" * 16
    vfs.umount("/")
    if blank:
        vfs.VfsLfs2.mkfs(flash)
    vfs.mount(vfs.VfsLfs2(flash), "/")
    if blank:
        with open("boot.py", "w") as boot:
            boot.write("# This file is executed on every boot\n")


def on():
    # Returns the argument of _run.serve. A session leader that opens a terminal is ended with it:
    # the board dies with the one who runs it.
    open(getenv("BOARD_TERMINAL")).close()
    directory = getenv("BOARD_DIR")
    _chip.memory = _lasting_memory(directory + "/chip.mem")
    _mount(directory + "/flash.img")
    if _chip.memory[8] in b"\x02\x03":  # reset or watchdog: what a chip's boot loader says first
        sys.stdout.write("rst:0xc (SW_CPU_RESET)\n")
    main = __import__("__main__").__dict__
    main.clear()
    main["__name__"] = "__main__"
    del sys.argv[:]
    sys.path[:] = ("", ".frozen", "/rom", "/lib")
    del sys.modules["_power"], sys.modules["_flash"]
    return main
