"""Putting firmware and identity onto one board, and following it until it is connected.
Sends secrets only to the board that is theirs, and last; nothing it prints or raises holds the content of a file."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espdps.board import obstacles, repl
from espdps.board.console import Event, Fault
from espdps.board.monitor import Listener
from espdps.board.repl import About, Board, Found
from espdps.devices import application, bindings, folder_doctor, mpy, profiles, shred
from espdps.devices.folders import Device
from espdps.errors import ToolError
from espdps.paths import FIRMWARE

PUBLIC = ("roots.pem", "device.json", "device.csr", "onboarding.crt")
SECRET = ("onboarding.key", "device.key", "secrets.json")
ISSUED = ("identity.a", "identity.b")  # what the firmware stores of an issued identity
SLOT_BYTES = 12000  # of each of them, as the firmware makes it (store.py)
BLANK_SLOT = Found(hashlib.sha256(b"\n" * SLOT_BYTES).hexdigest(), SLOT_BYTES)
OWNER = ("registration_id", "id_scope", "dps_host", "port")  # whose identity it is, by device.json
LIBRARY = "/lib/aziot"
MPY_VERSION = 6  # of the bytecode, from MicroPython 1.19 on
FOLLOW_SECONDS = 120.0
SETTLE_SECONDS = 10.0  # after an error line the board either goes on or says nothing for long
CONNECTED = ("hub.ready", "hub.sent")


@dataclass(frozen=True, kw_only=True)
class Hears:
    """Who hears how it goes. What one of them raises breaks the flashing off.

    `tell`: the tool's steps. `progress`: bytes done and bytes in all, and at least every second while a board is
    followed. `event`: what the board says.
    """

    tell: Callable[[str, str], None] = lambda step, text: None
    progress: Callable[[int, int], None] = lambda done, total: None
    event: Callable[[Event], None] = lambda event: None


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to flash. `follow`: for how many seconds the restarted board is followed at most, None: not at all."""

    follow: float | None = FOLLOW_SECONDS
    app_only: bool = False  # the application, nothing of the identity
    verify: bool = False  # only compare
    rebind: bool = False  # this chip gets this device, whatever either was bound to
    app: Path | None = None  # the application, a file or a folder; None: the one beside the firmware


@dataclass
class Flashed:
    """What was done, and how it ended: `connected`, or `fault`, or neither when the board was not followed.

    `differs`, of a comparison alone: what flashing would copy or remove. `obstacles`: what of the user's own files on
    the board may be in the way. `shredded`: what was taken off the PC.
    """

    chip_id: str = ""
    copied: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    obstacles: list[str] = field(default_factory=list)
    shredded: list[str] = field(default_factory=list)
    connected: bool = False
    fault: Fault | None = None


def flash(
    device: Device,
    port: str,
    *,
    firmware: Path = FIRMWARE,
    tell: Callable[[str, str], None] = Hears.tell,
    progress: Callable[[int, int], None] = Hears.progress,
    on_event: Callable[[Event], None] = Hears.event,
    follow: float | None = FOLLOW_SECONDS,
    app_only: bool = False,
    verify: bool = False,
    rebind: bool = False,
    app: Path | None = None,
) -> Flashed:
    """Bring the board at `port` to the state of `device` and `firmware`, restart it and follow it.

    Only what differs is copied, and each copy is compared by SHA-256. What may be given is told at `Hears` and
    `Options`. Raises ToolError for everything that keeps the tool from doing it; an error the board reports is no
    exception but the result's `fault`.
    """
    hears = Hears(tell=tell, progress=progress, event=on_event)
    options = Options(follow=follow, app_only=app_only, verify=verify, rebind=rebind, app=app)
    for note in check_folder(device, options):
        hears.tell("note", note)
    library = {} if app_only else compile_library(firmware, device.profile.mpy)
    if library:
        size = sum(map(len, library.values())) / 1024
        hears.tell("compiled", f"{len(library)} modules, {size:.1f} KB of .mpy")
    with repl.opened(port) as board:
        return flash_opened(board, board.about(), device, library, firmware, options, hears)


def flash_opened(
    board: Board,
    about: About,
    device: Device,
    library: Mapping[str, bytes],
    firmware: Path,
    options: Options,
    hears: Hears,
) -> Flashed:
    """As `flash`, for a board at its prompt, a folder that was checked and a library that is compiled."""
    chip = check_runtime(about, device)
    id_text = f", id {about.chip_id}" if about.chip_id else ""
    hears.tell("board", f"MicroPython {about.version[0]}.{about.version[1]} on {chip}{id_text}")
    folder = device.folder.resolve().parent
    if not options.rebind:
        bindings.check(bindings.read(folder), about.chip_id, device.registration_id)
    files = application.read(options.app or firmware)
    if not options.app_only:
        files = _files(device, library, firmware, files)
    result = Flashed(about.chip_id)
    todo = _compare(board, device, files, options.app_only)
    if not options.verify:
        own = {path.stem: path.read_bytes() for path in [*(firmware / "aziot").glob("*.py"), *firmware.glob("*.py")]}
        result.obstacles = obstacles.find(board, files, own)
        for obstacle in result.obstacles:
            hears.tell("note", obstacle)
    result.same = [name for name in files if name not in todo.copy]
    if options.verify:
        result.differs = [*todo.remove, *todo.blank, *todo.copy]
    else:
        todo.check_room(about)
        if not options.app_only:  # before the first secret
            binding = bindings.bind(folder, about.chip_id, device.registration_id, rebind=options.rebind)
        _copy(board, files, todo, result, hears)
        if not options.app_only:
            bindings.complete(folder, binding)
            if shred.wanted(device.folder):
                result.shredded = shred.shred(device.folder)
                hears.tell("shredded", ", ".join(result.shredded) or "nothing left to remove from this PC")
    listener = board.restart()
    hears.tell("restarted", "")
    if options.follow is not None and not options.verify:
        _follow(listener, options.follow, hears, result)
    return result


def check_folder(device: Device, options: Options) -> list[str]:
    """What is worth knowing of the folder; ToolError for what is wrong with it, if it is to go onto a board."""
    if options.app_only or options.verify:
        return []
    return [f"{finding.where}: {finding.message}" for finding in folder_doctor.admit(device.folder)]


def compile_library(firmware: Path, options: tuple[str, ...]) -> dict[str, bytes]:
    """Path on the board -> content, for each module of firmware/aziot. Raises ToolError with the compiler's words."""
    sources = sorted((firmware / "aziot").glob("*.py"))
    if not sources or not (firmware / "main.py").is_file():
        raise ToolError(f"{firmware} holds no firmware", "it has main.py and a folder aziot")
    return {f"{LIBRARY}/{source.stem}.mpy": mpy.compiled(source, options) for source in sources}


def check_runtime(about: About, device: Device) -> str:
    """The chip, or what stands for it. Raises ToolError when the firmware cannot run on the board."""
    profile = device.profile
    remedy = "install MicroPython {}.{} or newer on it".format(*profile.min_version)
    if about.runtime != profile.runtime:
        raise ToolError(f"the board runs {about.runtime}, not {profile.runtime}", remedy)
    if about.version < profile.min_version:
        version = "{}.{}".format(*about.version)
        raise ToolError(f"the board runs MicroPython {version}, which is too old", remedy)
    if about.mpy != MPY_VERSION:
        raise ToolError(f"the board reads .mpy version {about.mpy}, not {MPY_VERSION}", remedy)
    if not fits(about, device):
        raise ToolError(
            f"the board has an {about.chip}, and {device.registration_id} was made for {profile.name}",
            "take another board, or make the device again: esp-dps new … --board … --force",
        )
    return about.chip or about.platform


def fits(about: About, device: Device) -> bool:
    """Whether the board has a chip of the family that the device was made for, or says nothing of its chip."""
    return not about.chip or profiles.family(about.chip) in map(profiles.family, device.profile.chips)


def _files(device: Device, library: Mapping[str, bytes], firmware: Path, app: Mapping[str, bytes]) -> dict[str, bytes]:
    """Path on the board -> content, in the order they are copied: secrets last."""
    files = dict(library)
    files["/board.json"] = json.dumps(device.profile.board_json()).encode()
    files |= app
    own = (firmware / name for name in application.OWN)
    files |= {f"/{path.name}": path.read_bytes() for path in own if path.is_file()}
    kept = shred.on_board(device.folder)
    for name in PUBLIC + SECRET:
        if not (device.folder / name).is_file():
            continue
        content = (device.folder / name).read_bytes()
        # Without the device key, which is on the board only, it must not take the place of the one there.
        if name != "secrets.json" or name not in kept or "device_key" in json.loads(content):
            files[f"/{name}"] = content
    return files


@dataclass
class _Todo:
    """What has to be done to a board, in this order; `free` and `need`: bytes that it frees and takes, file by file."""

    remove: list[str]
    blank: list[str]  # slots to make
    copy: list[str]
    freed: list[int]
    needed: list[int]

    def check_room(self, about: About) -> None:
        """Raises ToolError if it does not all fit into the board's filesystem."""

        def blocks(sizes: Iterable[int]) -> int:
            return sum(-(-size // about.block) for size in sizes)

        missing = blocks(self.needed) - blocks(self.freed) - about.free
        if missing > 0:
            need, free = (blocks(self.needed) * about.block, about.free * about.block)
            raise ToolError(
                f"the board's filesystem is full: {need // 1024} KB to copy, {free // 1024} KB free",
                "remove what is not needed: mpremote fs ls, mpremote fs rm",
            )


def _compare(board: Board, device: Device, files: Mapping[str, bytes], app_only: bool) -> _Todo:
    """What makes the board's files equal to `files`, and removes what would get in their way. Raises ToolError."""
    ours = [] if app_only else [f"/{name}" for name in PUBLIC + SECRET + ISSUED]
    there = board.survey([*files, *(name for name in ours if name not in files)], LIBRARY)
    remove: list[str] = []
    blank: list[str] = []
    if not app_only:
        kept = _kept(device, files, there)
        remove = [name for name in there if name not in files and (name in ours or name.startswith(LIBRARY))]
        remove = [name for name in remove if name not in kept]
        if _other_owner(board, device, files, kept, there):
            remove = [name for name in remove if there[name] != BLANK_SLOT]
        else:
            remove = [name for name in remove if name[1:] not in ISSUED]
        blank = [name for name in ours if name[1:] in ISSUED and (name not in there or name in remove)]
    copy = [name for name in files if name not in there or there[name].sha256 != _sha256(files[name])]
    freed = [there[name].size for name in [*remove, *copy] if name in there]
    return _Todo(remove, blank, copy, freed, [SLOT_BYTES] * len(blank) + [len(files[name]) for name in copy])


def _kept(device: Device, files: Mapping[str, bytes], there: Mapping[str, Found]) -> dict[str, str]:
    """Path -> SHA-256 of what only the board has, verified to be there. Raises ToolError if it is not."""
    kept = {f"/{name}": digest for name, digest in shred.on_board(device.folder).items() if f"/{name}" not in files}
    for name, digest in kept.items():
        if name not in there or there[name].sha256 != digest:
            raise ToolError(
                f"the board does not have the {name} of {device.registration_id}, and this PC has it no more",
                "take the board it was flashed onto, or make the device anew: esp-dps new … --force",
            )
    return kept


def _other_owner(
    board: Board,
    device: Device,
    files: Mapping[str, bytes],
    kept: Mapping[str, str],
    there: Mapping[str, Found],
) -> bool:
    """Whether what the board has stored belongs to another device or another key, so that it must not be used again."""
    if "/device.json" not in there:
        return True
    key = _sha256(files["/device.key"]) if "/device.key" in files else kept.get("/device.key", "")
    if there.get("/device.key", Found()).sha256 != key:
        return True
    try:
        before: Any = json.loads(board.fs_readfile("/device.json"))
        return any(before.get(name) != device.config.get(name) for name in OWNER)
    except (ValueError, AttributeError):
        return True


def _copy(board: Board, files: Mapping[str, bytes], todo: _Todo, result: Flashed, hears: Hears) -> None:
    """Do it. Fills `result`."""
    for name in todo.remove:  # first, since it makes room, and a module's old .py would be taken before its new .mpy
        board.fs_rmfile(name)
        result.removed.append(name)
    if todo.blank:
        board.make_blank(todo.blank, SLOT_BYTES)
        hears.tell("slots", f"{' and '.join(todo.blank)}, {SLOT_BYTES:,} bytes each, for what will be issued")
    for folder in ("/lib", LIBRARY) if any(name.startswith(LIBRARY) for name in todo.copy) else ():
        if not board.fs_isdir(folder):
            board.fs_mkdir(folder)
    start, sent, total = time.monotonic(), 0, sum(len(files[name]) for name in todo.copy)
    for name in todo.copy:
        content = files[name]
        hears.progress(sent, total)
        board.fs_writefile(
            name, content, progress_callback=lambda done, _, before=sent: hears.progress(before + done, total)
        )
        if board.survey([name], LIBRARY)[name].sha256 != _sha256(content):
            raise ToolError(f"{name} arrived damaged on the board", "try again, with another cable or port")
        result.copied.append(name)
        sent += len(content)
        hears.tell("copied", f"{name}, {len(content):,} bytes")
    summary = f"{len(result.copied)} copied, {sent / 1024:.1f} KB in {time.monotonic() - start:.1f} s"
    hears.tell("files", f"{summary}; {len(result.same)} were the same, {len(result.removed)} removed")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _follow(listener: Listener, seconds: float, hears: Hears, result: Flashed) -> None:
    """Follow the board until it is connected or has given up. Raises ToolError when it does neither in time."""
    settled = float("inf")
    deadline = time.monotonic() + seconds
    for event in listener.events(seconds):
        hears.progress(1, 1)
        if event is None:
            if time.monotonic() > settled:
                return
            continue
        hears.event(event)
        if event.fault:
            # Not the end yet: a stored identity that is refused leads back to DPS.
            result.fault = event.fault
            settled = time.monotonic() + SETTLE_SECONDS
        elif event.step in CONNECTED:
            result.connected, result.fault = True, None
            return
        elif event.step == "wait":
            # The board tries again by itself: worth following if that is soon, and either another way ("then DPS") or
            # not the service's no.
            settled = time.monotonic() + float(event.text.split()[0]) + SETTLE_SECONDS
            refused = result.fault and result.fault.refused and not event.text.endswith("then DPS")
            if settled > deadline or refused:
                return
        elif event.step:
            settled = float("inf")
    if result.fault is None:
        where = f"look at {'; '.join(result.obstacles)}" if result.obstacles else ""
        if listener.at_prompt:
            hint = where or "see what it printed last"
            raise ToolError("the program on the board ended before it was connected", hint)
        hint = where or "esp-dps monitor shows how it goes on"
        raise ToolError(f"the board was not connected within {seconds:.0f} s", hint)
