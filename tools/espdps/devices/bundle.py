"""A bundle: all device folders of a fleet in one SQLite file, whole after any interruption.
For its owner only, and nothing in it is ever changed: devices are added or read.

Its view `sqlar` has the columns of an SQLite Archive (sqlite.org/sqlar.html), for getting at it without this tool."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from espdps.errors import WRONG_USE, ToolError, of_system

APPLICATION = 0x65445053  # "eDPS": which kind of SQLite file it is (PRAGMA application_id)
COMMIT_SECONDS = 0.1
# The files of a device folder. The roots are the same for many devices and are kept once.
FILES = (
    "manifest.json", "device.json", "secrets.json", "device.csr", "device.key", "onboarding.crt", "onboarding.key"
)  # fmt: skip
ROOTS = "roots.pem"
_COLUMNS = ", ".join(f'"{name}"' for name in FILES)


def _sqlar() -> str:
    folder = f"SELECT id AS name, {0o40700} AS mode, made AS mtime, 0 AS sz, NULL AS data FROM device"
    files = [
        f"SELECT id || '/{name}', {0o100600}, made, length({column}), {column} FROM {table} WHERE {column} NOTNULL"
        for name, column, table in [
            *((name, f'"{name}"', "device") for name in FILES),
            (ROOTS, "pem", "device JOIN roots ON roots = number"),
        ]
    ]
    return "CREATE VIEW sqlar AS " + " UNION ALL ".join([folder, *files])


_SCHEMA = f"""
BEGIN;
CREATE TABLE roots (number INTEGER PRIMARY KEY, pem BLOB NOT NULL UNIQUE);
CREATE TABLE device (id TEXT PRIMARY KEY COLLATE NOCASE, made INTEGER NOT NULL, roots INTEGER NOT NULL,
    {", ".join(f'"{name}" BLOB' for name in FILES)});
{_sqlar()};
PRAGMA application_id = {APPLICATION};
COMMIT;
"""


class Bundle:
    """An open bundle; use it by `with`. `create` makes one that is not there; only one process may add at a time.

    Raises ToolError if the file is something else, cannot be opened, or is in use.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        try:
            if create:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            elif not path.is_file():
                raise ToolError(f"no bundle {path}", "esp-dps fleet --bundle makes one", WRONG_USE)
            mode = "rw" if os.access(path, os.W_OK) else "ro"  # an interrupted writing is undone by who comes next
            self._db = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=0
            )
            empty = create and self._db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
            ours = empty or self._db.execute("PRAGMA application_id").fetchone() == (APPLICATION,)
            if ours and create:
                # Changes go to a log first, which needs no waiting for the disk at each of them; taking it up again at
                # the end leaves one plain file.
                self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.execute("PRAGMA wal_autocheckpoint = 4000")  # pages, 16 MB
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute("COMMIT")
            if empty:
                self._db.executescript(_SCHEMA)
        except OSError as error:
            raise of_system(error, path) from None
        except sqlite3.Error as error:
            raise _trouble(path, error) from None
        if not ours:
            raise ToolError(f"{path} is not a bundle of device folders", "give another name", WRONG_USE)
        self._writes = create
        self._known: dict[bytes, int] = {}  # roots and their number
        self._committed = time.monotonic()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("COMMIT")
            if self._writes:
                self._db.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error as error:
            raise _trouble(self.path, error) from None
        finally:
            self._db.close()

    def names(self) -> Iterator[str]:
        """Registration ids, sorted."""
        return (str(name) for (name,) in self._execute("SELECT id FROM device ORDER BY id"))

    def find(self, registration_id: str) -> dict[str, bytes]:
        """File name -> content of a device folder; nothing for a device that is not there."""
        query = f"SELECT {_COLUMNS}, pem FROM device JOIN roots ON roots = number WHERE id = ?"
        row = self._execute(query, (registration_id,)).fetchone()
        if row is None:
            return {}
        return {name: content for name, content in zip((*FILES, ROOTS), row, strict=True) if content is not None}

    def add(self, devices: list[tuple[str, dict[str, bytes]]]) -> None:
        """Registration id and files of devices that are not there yet. Kept for good within COMMIT_SECONDS."""
        if not self._db.in_transaction:
            self._execute("BEGIN IMMEDIATE")
        for registration_id, files in devices:
            unknown = files.keys() - {*FILES, ROOTS}
            assert not unknown, unknown
            values = [
                registration_id,
                int(time.time()),
                self._roots(files[ROOTS]),
                *(files.get(name) for name in FILES),
            ]
            self._execute(f"INSERT INTO device VALUES ({', '.join('?' * len(values))})", values)
        if time.monotonic() > self._committed + COMMIT_SECONDS:
            self._execute("COMMIT")
            self._committed = time.monotonic()

    def _roots(self, pem: bytes) -> int:
        if pem not in self._known:
            self._execute("INSERT OR IGNORE INTO roots (pem) VALUES (?)", (pem,))
            self._known[pem] = int(self._execute("SELECT number FROM roots WHERE pem = ?", (pem,)).fetchone()[0])
        return self._known[pem]

    def _execute(self, statement: str, values: object = ()) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, values)  # type: ignore[arg-type]
        except sqlite3.Error as error:
            raise _trouble(self.path, error) from None


def _trouble(path: Path, error: sqlite3.Error) -> ToolError:
    if "locked" in str(error):
        return ToolError(f"{path} is in use", "another run of esp-dps fleet has it: wait until that has ended")
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
        return ToolError(f"{path} is not a bundle of device folders", "give another name", WRONG_USE)
    return ToolError(f"{path}: {error}", "what is complete stays; start again when that is mended")
