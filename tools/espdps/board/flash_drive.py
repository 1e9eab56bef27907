"""Putting firmware and identity onto a CIRCUITPY drive: files are compared, copied and read back, secrets late.
The last is code.py, and it is away while other modules change: CircuitPython starts anew whenever a file does."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from espdps.board import drive_finder
from espdps.board.flash import OWNER, Flashed, Hears, Options, check_folder
from espdps.devices import application, bindings, drive_content, settings_toml
from espdps.devices.drive_content import BLANK, CODE, SECRET, SETTINGS, SLOTS
from espdps.devices.folders import Device
from espdps.devices.profiles import Profile
from espdps.errors import ToolError, of_system
from espdps.paths import FIRMWARE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LIBRARY = "/lib/aziot"
# Ours on any drive, besides what a device has: removed where the device has none
IDENTITY = ("/roots.pem", "/device.csr", "/onboarding.crt", *SECRET, *SLOTS)
RUNS_FIRST = "/code.txt"  # CircuitPython prefers it to code.py
DRAFT = ".esp-dps.new"
# Names of a user's programs, too: on a drive that never had this firmware they are kept, where nothing runs them.
PROGRAMS = (CODE, "/boot.py", "/app.py", "/hardware.py")
BEFORE = ".before"
FRESH = b'print("Hello World!")'  # CircuitPython's own code.py on a new drive
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_GONE = {errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ENOMEDIUM}


def flash(
    device: Device,
    root: Path | None = None,
    *,
    firmware: Path = FIRMWARE,
    tell: Callable[[str, str], None] = Hears.tell,
    app_only: bool = False,
    verify: bool = False,
    rebind: bool = False,
    app: Path | None = None,
) -> Flashed:
    """Bring the drive at `root`, or the only one that is mounted, to the state of `device` and `firmware`.

    Only what differs is copied, and each copy is read back and compared by SHA-256. The board starts anew by itself;
    nobody follows it. Raises ToolError for everything that keeps the tool from doing it; the next run goes on.
    """
    options = Options(follow=None, app_only=app_only, verify=verify, rebind=rebind)
    check_device(device)
    for note in check_folder(device, options):
        tell("note", note)
    target = drive_finder.read(root) if root else drive_finder.find()
    drive_finder.check(target, device.profile)
    tell("board", f"CircuitPython {target.release} on {target.board_id}, id {target.uid}, at {target.root}")
    folder = device.folder.resolve().parent
    if not rebind:
        bindings.check(bindings.read(folder), target.uid, device.registration_id)
    if app_only:
        files = application.read(app or firmware)
    else:
        files = drive_content.contents(device, firmware, app)
        tell("libraries", ", ".join(f"{name.rpartition('-')[2]} {v}" for name, v in drive_content.versions().items()))
    with _explained(target.root, device.profile):
        if (target.root / RUNS_FIRST[1:]).exists():
            tell("note", f"CircuitPython runs {RUNS_FIRST} of the drive, not {CODE}: remove it")
        if not app_only:
            _fit(files, target.root, device, tell)
        todo = _Todo(files, target.root, app_only, _other_owner(target.root, device) if not app_only else False)
        result = Flashed(target.uid, same=[name for name in files if name not in todo.copy])
        if verify:
            result.differs = [*todo.remove, *todo.blank, *todo.copy]
            return result
        if drive_finder.read_only(target.root):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        programs = [] if app_only else _programs(target.root, todo.copy)
        todo.check_room(programs)
        if not app_only:  # before the first secret
            binding = bindings.bind(folder, target.uid, device.registration_id, rebind=rebind)
        for name in programs:
            _at(target.root, name).rename(_at(target.root, name + BEFORE))
            tell("note", f"{name} was a program of yours: kept as {name[1:]}{BEFORE}")
        todo.do(result, tell)
    if not app_only:
        bindings.complete(folder, binding)
    return result


def check_device(device: Device) -> None:
    """Raises ToolError for a device that no CIRCUITPY drive can be given."""
    if drive_content.shredding(device):
        raise ToolError(
            f"{device.registration_id} was made with shred_after_flash, which a CIRCUITPY drive cannot keep: "
            "whoever plugs it in may read and change it",
            "make it anew without: esp-dps new … --force",
        )


class _Todo:
    """What has to be done to a drive, in this order: remove, make blank, copy."""

    def __init__(self, files: dict[str, bytes], root: Path, app_only: bool, other_owner: bool) -> None:
        self.files, self.root = files, root
        self.copy = [
            name for name, content in files.items() if _found(_at(root, name)) != (len(content), _sha(content))
        ]
        self.remove: list[str] = []
        self.blank: list[str] = []
        if not app_only:
            old = (f"{LIBRARY}/{path.name}" for path in sorted(_at(root, LIBRARY).glob("*.*py")))
            keep = () if other_owner else SLOTS
            there = [*old, *(name for name in IDENTITY if _at(root, name).exists())]
            self.remove = [name for name in there if name not in files and name not in keep]
            blank = (len(BLANK), _sha(BLANK))
            self.remove = [name for name in self.remove if name not in SLOTS or _found(_at(root, name)) != blank]
            self.blank = [name for name in SLOTS if name in self.remove or not _at(root, name).exists()]

    def check_room(self, kept: list[str]) -> None:
        """Raises ToolError if it does not all fit onto the drive beside what is `kept`."""
        space = os.statvfs(self.root)
        sizes = [len(self.files[name]) for name in self.copy] + [len(BLANK)] * len(self.blank)
        names = [name for name in (*self.remove, *self.copy) if name not in kept and self._there(name)]
        freed = [_at(self.root, name).stat().st_size for name in names]
        need = sum(-(-size // space.f_frsize) for size in sizes)
        if need - sum(-(-size // space.f_frsize) for size in freed) > space.f_bavail:
            have = space.f_bavail * space.f_frsize // 1024
            raise ToolError(
                f"{self.root} is full: {need * space.f_frsize // 1024} KB to copy, {have} KB free",
                "remove from the drive what is not needed",
            )

    def _there(self, name: str) -> bool:
        return _at(self.root, name).is_file()

    def do(self, result: Flashed, tell: Callable[[str, str], None]) -> None:
        """Do it. Fills `result`. Raises OSError, and ToolError for a copy that is damaged."""
        copy = list(self.copy)
        if any(name.endswith(".py") for name in (*copy, *self.remove)) and self._there(CODE) and CODE in self.files:
            _at(self.root, CODE).unlink()  # so that nothing starts between an old module and a new one
            copy = [name for name in copy if name != CODE] + [CODE]
            result.same = [name for name in result.same if name != CODE]
        for name in self.remove:
            _at(self.root, name).unlink()
            result.removed.append(name)
        begun, sent = time.monotonic(), 0
        for name in self.blank:
            _write(self.root, name, BLANK)
        if self.blank:
            tell("slots", f"{' and '.join(self.blank)}, {len(BLANK):,} bytes each, for what will be issued")
        for name in copy:
            content = self.files[name]
            _write(self.root, name, content)
            if _found(_at(self.root, name)) != (len(content), _sha(content)):
                raise ToolError(f"{name} arrived damaged on {self.root}", "try again, with another cable or port")
            result.copied.append(name)
            sent += len(content)
            tell("copied", f"{name}, {len(content):,} bytes")
        summary = f"{len(result.copied)} copied, {sent / 1024:.1f} KB in {time.monotonic() - begun:.1f} s"
        tell("files", f"{summary}; {len(result.same)} were the same, {len(result.removed)} removed")


def _fit(files: dict[str, bytes], root: Path, device: Device, tell: Callable[[str, str], None]) -> None:
    """Leave on the drive what is its owner's: lines of settings.toml, and libraries that are there as .mpy already."""
    with contextlib.suppress(FileNotFoundError):
        files[SETTINGS] = settings_toml.merged(drive_content.settings(device), _at(root, SETTINGS).read_bytes())
    compiled = [name for name in drive_content.libraries() if _has_compiled(_at(root, name))]
    for name in compiled:
        del files[name]
    if compiled:
        tell("note", f"left as .mpy, whose version is yours to know: {', '.join(compiled)}")


def _programs(root: Path, copy: list[str]) -> list[str]:
    """What a user had there. Raises ToolError rather than lose one that was kept before."""
    if _at(root, LIBRARY).exists():
        return []
    found = [name for name in PROGRAMS if name in copy and _at(root, name).is_file()]
    found = [name for name in found if _at(root, name).read_bytes().strip().replace(b"'", b'"') not in (b"", FRESH)]
    for name in found:
        if _at(root, name + BEFORE).exists():
            raise ToolError(
                f"{root} has {name[1:]} and {name[1:]}{BEFORE}", "move them from the drive, if they are yours"
            )
    return found


def _has_compiled(source: Path) -> bool:
    return not source.exists() and source.with_suffix(".mpy").is_file()


def _other_owner(root: Path, device: Device) -> bool:
    """Whether what the drive has stored belongs to another device or another key, so that it must not be used again."""
    try:
        before = tomllib.loads(_at(root, SETTINGS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # none, or none that can be read
        return True
    now = drive_content.settings(device)
    names = [settings_toml.PREFIX + name.upper() for name in OWNER]
    if any(before.get(name) != now.get(name) for name in names):
        return True
    key = device.folder / "device.key"
    expected = drive_content.key_pem(key) if key.is_file() else b""
    there = _at(root, "/device.key")
    return (there.read_bytes() if there.exists() else b"") != expected


def _at(root: Path, name: str) -> Path:
    return root / name[1:]


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _found(path: Path) -> tuple[int, str] | None:
    """Size and SHA-256 of a file, read from the drive and not from what the PC remembers of it."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return size, _sha(file.read(size))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write(root: Path, name: str, content: bytes) -> None:
    """All of it is on the drive then. settings.toml has lines of a user: until then, the old one is there."""
    if not (root / drive_finder.BOOT_OUT).exists():  # else what the drive was mounted on would be written to
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    path = _at(root, name)
    for folder in reversed(path.relative_to(root).parents[:-1]):
        (root / folder).mkdir(exist_ok=True)
    draft = path.with_name(DRAFT) if name == SETTINGS else path
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if draft != path:
        draft.replace(path)
    parent = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


@contextlib.contextmanager
def _explained(root: Path, profile: Profile) -> Iterator[None]:
    """Turns what a drive does to who writes to it into a line for a person."""
    try:
        yield
    except OSError as error:
        if error.errno in _GONE or not (root / drive_finder.BOOT_OUT).exists():
            raise ToolError(f"the drive at {root} went away", "plug the board in and flash again: it goes on") from None
        if error.errno in _READ_ONLY:
            raise ToolError(
                f"{root} is read-only: boot.py has given the drive to the board", take_back(profile)
            ) from None
        if error.errno in _FULL:
            raise ToolError(f"{root} is full", "remove what is not needed and flash again: it goes on") from None
        raise of_system(error, error.filename or root, after="flash again: it goes on") from None


def take_back(profile: Profile) -> str:
    """How a person gets a drive back that boot.py has given to its board."""
    if profile.button:
        return f"press reset, then at once hold the button {profile.button} until the drive is back"
    return "press reset, and once more while the status LED blinks yellow: in safe mode boot.py does not run"
