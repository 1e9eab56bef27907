"""A fleet: the device folders of a whole plan, made on all cores, and what became of each row in a manifest.
Never makes again what is there, and never holds more than a few batches of rows in memory."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

from espdps import inputs, locks
from espdps.credentials import keys
from espdps.devices import folders, plan, profiles
from espdps.devices.plan import Bad, Row
from espdps.devices.pool import Pool, cores
from espdps.errors import ToolError, of_system
from espdps.files import read

MADE, KEPT, BAD = "made", "kept", "bad"  # states of a row: now, in an earlier run, not at all
WORK = ".fleet-"  # how the names of folders begin that are not whole yet
FORMULA = ("=", "+", "-", "@", "\t", "\r")
BATCH = 64  # EC keys; an RSA key counts as one batch, since it takes a thousand times as long


@dataclass(frozen=True, kw_only=True)
class Common:
    """What all devices of the fleet share. `folder`: where the plan's file names start; `devices`: where the device
    folders go; `group_key` and `secondary_group_key` base64.
    """

    folder: Path
    devices: Path
    id_scope: str
    board: str | None
    roots: bytes = field(repr=False)
    group_key: str | None = field(default=None, repr=False)
    secondary_group_key: str | None = field(default=None, repr=False)
    key_kind: str | None = keys.DEFAULT_KIND
    dps_host: str = folders.AZURE_HOST
    port: int = folders.PORT
    spread: int | None = None
    wifi_ssid: str | None = None
    wifi_password: str = field(default="", repr=False)
    shred_after_flash: bool = False


@dataclass(frozen=True)
class Done:
    """What became of one row."""

    line: int
    registration_id: str
    state: str
    board: str = ""
    key_type: str = ""
    csr_sha256: str = ""
    reason: str = ""


@dataclass
class Totals:
    """How a run went; `seconds` from the moment when all processes were ready."""

    rows: int = 0
    made: int = 0
    kept: int = 0
    bad: int = 0
    seconds: float = 0

    @property
    def rate(self) -> float:
        """Devices made a second."""
        return self.made / self.seconds if self.seconds else 0


def run(
    path: Path,
    common: Common,
    manifest: Path,
    *,
    processes: int | None = None,
    tell: Callable[[Totals], None] = lambda totals: None,
    on_bad: Callable[[Done], None] = lambda done: None,
) -> Totals:
    """Make what the plan `path` asks for, in `common.devices`, and write the manifest when all is done.

    What an earlier run has made is kept. `tell` hears how far it is, often; `on_bad` of each row that cannot be used.
    Raises ToolError for what keeps the whole from being done, OSError when the disk does.
    """
    totals = Totals()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_the_only_run(manifest.with_name(f".{manifest.name}.new")))
        store = stack.enter_context(_Folders(common.devices))
        index = stack.enter_context(contextlib.closing(_Index(store.names())))
        table = stack.enter_context(_Manifest(manifest))
        pool = stack.enter_context(Pool(_make_batch, common, processes or cores()))
        start = time.monotonic()
        for batch in pool.run(_batches(_sorted_out(plan.read(path), index, store), common.key_kind)):
            for done in batch:
                table.add(done)
                totals.rows += 1
                totals.made += done.state == MADE
                totals.kept += done.state == KEPT
                totals.bad += done.state == BAD
                if done.state == BAD:
                    on_bad(done)
            totals.seconds = time.monotonic() - start
            tell(totals)
        table.complete()
    totals.seconds = time.monotonic() - start
    return totals


@dataclass(frozen=True)
class _There:
    """A row whose device is there already, and its files."""

    row: Row
    files: dict[str, bytes] = field(repr=False)


def _sorted_out(rows: Iterable[Row | Bad], index: _Index, store: _Folders) -> Iterator[Row | Bad | _There]:
    """Each id once: rows for the second time are bad, and those that are complete come with what is there."""
    for row in rows:
        if isinstance(row, Bad):
            yield row
            continue
        name, line = index.enter(row.registration_id, row.line)
        if line:
            other = "" if name == row.registration_id else f" {name}; {folders.SAME_DEVICE}"
            yield Bad(row.line, row.registration_id, f"the same registration id as in line {line}{other}")
        elif name is None:
            yield row
        elif name != row.registration_id:
            yield Bad(row.line, row.registration_id, f"{name} is there already; {folders.SAME_DEVICE}")
        else:
            yield _There(row, store.find(name))


def _batches(rows: Iterable[Row | Bad | _There], kind: str | None) -> Iterator[list[Row | Bad | _There]]:
    """`kind` of key where a row says none."""
    batch: list[Row | Bad | _There] = []
    weight = 0
    for row in rows:
        batch.append(row)
        weight += BATCH if isinstance(row, Row) and (row.key_type or kind or "").startswith("rsa") else 1
        if weight >= BATCH:
            yield batch
            batch, weight = [], 0
    if batch:
        yield batch


# What the processes do


def _make_batch(common: Common, batch: list[Row | Bad | _There]) -> list[Done]:
    return [_make(common, row) for row in batch]


def _make(common: Common, row: Row | Bad | _There) -> Done:
    if isinstance(row, Bad):
        return Done(row.line, row.registration_id, BAD, reason=row.reason)
    there = row.files if isinstance(row, _There) else None
    row = row.row if isinstance(row, _There) else row
    try:
        wanted = _plan(common, row)
        if there is not None:
            _compare(wanted, there)
            return _done(row, KEPT, there)
        files = folders.contents(wanted)
        _write(common.devices, row.registration_id, files)
        return _done(row, MADE, files)
    except ToolError as error:
        return Done(row.line, row.registration_id, BAD, row.board or common.board or "", reason=error.line)


def _done(row: Row, state: str, files: dict[str, bytes]) -> Done:
    manifest = json.loads(files["manifest.json"])
    kind, digest = manifest["key_type"] or plan.NO_KEY, manifest["csr_sha256"] or ""
    return Done(row.line, row.registration_id, state, manifest["board"], kind, digest)


def _plan(common: Common, row: Row) -> folders.Plan:
    """What the folder of this row is to hold. Raises ToolError."""
    board = row.board or common.board
    if not board:
        raise ToolError("no board", "fill the column board, or give --board for all")
    _check_board(board, common.shred_after_flash)
    kind = row.key_type or common.key_kind
    if kind is not None and kind != plan.NO_KEY and kind not in keys.KINDS:
        raise ToolError(f"no key type {kind!r}", f"one of {', '.join(keys.KINDS)}, {plan.NO_KEY}")
    onboarding = device_key = secondary = None
    if row.onboarding_cert or row.onboarding_key:
        if not (row.onboarding_cert and row.onboarding_key) or row.device_key_file:
            raise ToolError(
                "onboarding_cert and onboarding_key go together, and without device_key_file", "fill both, or only that"
            )
        onboarding = _read(common, row.onboarding_cert), _read(common, row.onboarding_key)
    elif row.device_key_file:
        device_key = keys.symmetric_key(
            inputs.decode(_read(common, row.device_key_file), row.device_key_file), f"content of {row.device_key_file}"
        )
    elif common.group_key:
        device_key = keys.derive_device_key(common.group_key, row.registration_id)
        if common.secondary_group_key:
            secondary = keys.derive_device_key(common.secondary_group_key, row.registration_id)
    ssid = row.wifi_ssid or common.wifi_ssid
    return folders.Plan(
        registration_id=row.registration_id,
        id_scope=common.id_scope,
        board=board,
        device_key=device_key,
        secondary_device_key=secondary,
        onboarding=onboarding,
        roots=common.roots,
        key_kind=None if kind == plan.NO_KEY else kind,
        dps_host=common.dps_host,
        port=common.port,
        spread=common.spread,
        wifi_ssid=ssid,
        wifi_password=common.wifi_password if ssid else "",
        shred_after_flash=common.shred_after_flash,
    )


@lru_cache
def _check_board(board: str, shred_after_flash: bool) -> None:
    folders.check_shredding(profiles.load(board), shred_after_flash)


def _read(common: Common, name: str) -> bytes:
    return read(common.folder / name)


def _write(folder: Path, registration_id: str, files: dict[str, bytes]) -> None:
    """The folder of a device, at once with all its files, where there is none. Raises OSError, ToolError."""
    work = f"{folder}/{WORK}{registration_id}"
    os.mkdir(work, 0o700)
    try:
        folders.write_files(work, files)
        os.rename(work, f"{folder}/{registration_id}")
    except OSError as error:
        shutil.rmtree(work, ignore_errors=True)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise ToolError("somebody else has made it at this moment", "run it again: it is compared then") from None
        raise


def _compare(wanted: folders.Plan, files: dict[str, bytes]) -> None:
    """Raises ToolError unless what is there is what this row asks for; its keys are not made anew, whatever it is."""
    remedy = "correct the row, or remove what is there"
    try:
        manifest, config, secrets = (
            json.loads(files[name]) for name in ("manifest.json", "device.json", "secrets.json")
        )
        differ = [
            name
            for name, value in (
                ("board", wanted.board),
                ("key_type", wanted.key_kind),
                ("auth", "x509" if wanted.onboarding else "symmetric-key"),
            )
            if manifest.get(name) != value
        ]
        for name in ("id_scope", "dps_host", "port"):
            if config.get(name) != getattr(wanted, name):
                differ.append(name)
        if wanted.key_kind and hashlib.sha256(files["device.csr"]).hexdigest() != manifest.get("csr_sha256"):
            differ.append("device.csr")
        shredded = "secrets.json" in (manifest.get("shredded") or {})
        if secrets.get("device_key") != wanted.device_key and not shredded:
            differ.append("device key")
        if secrets.get("wifi_ssid") != wanted.wifi_ssid:
            differ.append("wifi_ssid")
    except (KeyError, ValueError, AttributeError, RecursionError):
        raise ToolError("it is there already, but damaged", "esp-dps doctor says how; or remove it") from None
    if differ:
        raise ToolError(f"it is there already, with another {', '.join(differ)}", remedy)


# Where it goes


class _Folders:
    """The devices folder, as a place for a fleet: one run at a time, and no remains of one that was killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> _Folders:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise of_system(error, self._folder) from None
        self._lock = _the_only_run(self._folder / ".fleet")
        self._lock.__enter__()
        for entry in os.scandir(self._folder):
            if entry.name.startswith(WORK):
                shutil.rmtree(entry.path, ignore_errors=True)
        with locks.alone(self._folder):
            folders.tidy(self._folder)
        return self

    def __exit__(self, *error: Any) -> None:
        self._lock.__exit__(*error)

    def names(self) -> Iterator[str]:
        return (entry.name for entry in os.scandir(self._folder) if not entry.name.startswith("."))

    def find(self, name: str) -> dict[str, bytes]:
        files = {}
        for part in ("manifest.json", "device.json", "secrets.json", "device.csr"):
            with contextlib.suppress(ToolError):  # what is missing is found when it is compared
                files[part] = read(self._folder / name / part)
        return files


class _Index:
    """Which registration ids there were, on disk rather than in memory; case makes no difference."""

    def __init__(self, names: Iterable[str]) -> None:
        self._db = sqlite3.connect("", isolation_level=None)  # a file of SQLite's own that is gone when closed
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("CREATE TABLE seen (id TEXT PRIMARY KEY, name TEXT, line INTEGER) WITHOUT ROWID")
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT OR IGNORE INTO seen VALUES (?, ?, 0)", ((name.lower(), name) for name in names if name.isascii())
        )

    def enter(self, name: str, line: int) -> tuple[str | None, int]:
        """The name as it was seen before, None if never, and the line of the plan, 0 if it is from before this run."""
        seen = self._db.execute("SELECT name, line FROM seen WHERE id = ?", (name.lower(),)).fetchone()
        if seen is None:
            self._db.execute("INSERT INTO seen VALUES (?, ?, ?)", (name.lower(), name, line))
            return None, 0
        if not seen[1] and seen[0] == name:
            self._db.execute("UPDATE seen SET line = ? WHERE id = ?", (line, name.lower()))
        return str(seen[0]), int(seen[1])

    def close(self) -> None:
        self._db.close()


class _Manifest:
    """The manifest CSV, in the plan's order; there only when it is complete."""

    _COLUMNS = ("registration_id", "board", "key_type", "csr_sha256", "state", "line", "reason")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._work = path.with_name(f".{path.name}.new")

    def __enter__(self) -> _Manifest:
        self._file: TextIO = self._work.open("w", newline="", encoding="utf-8")
        self._rows = csv.DictWriter(self._file, self._COLUMNS, extrasaction="ignore", lineterminator="\n")
        self._rows.writeheader()
        return self

    def add(self, done: Done) -> None:
        # A spreadsheet would take a text that begins so for a formula, and compute it.
        self._rows.writerow(
            {name: f"'{v}" if isinstance(v, str) and v[:1] in FORMULA else v for name, v in vars(done).items()}
        )

    def complete(self) -> None:
        self._file.close()
        self._work.replace(self._path)

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._work.unlink(missing_ok=True)


@contextlib.contextmanager
def _the_only_run(path: Path) -> Iterator[None]:
    """Holds a lock that ends with this process, however it ends. Raises ToolError when another one has it."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise of_system(error, path.parent) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise ToolError("another run of esp-dps fleet is at work here", "wait until it has ended") from None
    try:
        yield
    finally:
        os.close(handle)
