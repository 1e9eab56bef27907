"""What outlives a restart: each record is a row of JSON in SQLite, written anew whenever one of its fields changes.

Holds keys, so the file is for its owner alone. What a record means is not known here.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

_APPLICATION = 0x45445053  # "EDPS", in the file's header
_VERSION = 1  # of the rows' form
_CERTIFICATE = "$certificate"  # no document of a twin may have a name with a dollar sign


class StateFileError(Exception):
    """The file is not a simulator's, or another simulator has it."""


class Record:
    """A dataclass whose keeper is told of every change. Values are replaced, never changed in place."""

    _keeper: Callable[[], None] | None = None

    @property
    def key(self) -> str:
        """What it is found by among those of its kind: lower case, unless the table is ``exact``."""
        raise NotImplementedError

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if self._keeper is not None:
            self._keeper()

    def change(self, **fields: Any) -> None:
        """Several fields at once."""
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        if self._keeper is not None:
            self._keeper()

    def kept_by(self, keeper: Callable[[], None] | None) -> None:
        """Also of what is part of it and changes by itself."""
        object.__setattr__(self, "_keeper", keeper)
        for value in vars(self).values():
            if isinstance(value, Record):
                value.kept_by(keeper)


R = TypeVar("R", bound=Record)


class Storage:
    """``path``: None keeps everything in memory. Safe from any thread. Raises StateFileError."""

    def __init__(self, path: Path | None) -> None:
        self._lock, self._path = threading.Lock(), path
        if path is not None:
            # Made here, so that nobody else can read it, nor the log that SQLite puts beside it with the same mode.
            try:
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            except OSError as error:
                raise StateFileError(f"{path}: {error.strerror}") from None
        self._database = sqlite3.connect(
            ":memory:" if path is None else path, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            self.fresh = self._open()
        except sqlite3.OperationalError as error:
            self._database.close()
            reason = "another simulator has it open" if "locked" in str(error) else str(error)
            raise StateFileError(f"{path}: {reason}") from None
        except sqlite3.DatabaseError:
            self._database.close()
            raise StateFileError(f"{path}: not the state of a simulator") from None
        except StateFileError as error:
            self._database.close()
            raise StateFileError(f"{path}: {error}") from None

    def _open(self) -> bool:
        """Whether nothing was there yet."""
        execute = self._database.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")
        application, version = (execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        fresh = execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if not fresh and (application, version) != (_APPLICATION, _VERSION):
            raise StateFileError("not the state of a simulator of this version")
        # A row is safe from the end of this process as soon as it is written; a power cut may take the last ones.
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = NORMAL")
        execute("BEGIN IMMEDIATE")
        execute(f"PRAGMA application_id = {_APPLICATION}")
        execute(f"PRAGMA user_version = {_VERSION}")
        execute("CREATE TABLE IF NOT EXISTS record (kind TEXT, key TEXT, body TEXT, UNIQUE (kind, key))")
        execute("COMMIT")
        return fresh

    def load(self, kind: type[R]) -> Iterator[R]:
        """All of a kind, the eldest first. Raises StateFileError for a row that cannot be one."""
        query = "SELECT body FROM record WHERE kind = ? ORDER BY rowid"
        rows = self._database.execute(query, (kind.__name__,)).fetchall()
        tuples = {field.name for field in dataclasses.fields(kind) if str(field.type).startswith("tuple")}  # type: ignore[arg-type]  # every kind is a dataclass
        try:
            for (body,) in rows:
                fields = json.loads(body, object_hook=_revived)
                yield kind(**{name: tuple(value) if name in tuples else value for name, value in fields.items()})
        except (ValueError, TypeError) as error:
            raise StateFileError(f"{self._path}: a broken {kind.__name__}: {error}") from None

    def keep(self, record: Record) -> None:
        """Writes it, now and at every change."""
        record.kept_by(lambda: self._write(record))
        self._write(record)

    def drop(self, record: Record) -> None:
        record.kept_by(None)
        self._execute("DELETE FROM record WHERE kind = ? AND key = ?", type(record).__name__, record.key)

    def close(self) -> None:
        """What changes later is not written any more."""
        with self._lock:
            self._database.close()

    def _write(self, record: Record) -> None:
        self._execute(
            "INSERT INTO record VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET body = excluded.body",
            type(record).__name__,
            record.key,
            json.dumps(_fields(record), default=_plain),
        )

    def _execute(self, statement: str, *values: str) -> None:
        with self._lock:
            try:
                self._database.execute(statement, values)
            except sqlite3.ProgrammingError:
                pass  # closed: the simulator has stopped


class Table(Generic[R]):
    """The records of one kind, by key, in the order in which they came. ``exact``: case counts."""

    def __init__(self, storage: Storage, kind: type[R], exact: bool = False) -> None:
        self._storage, self._exact = storage, exact
        self._records = {record.key: record for record in storage.load(kind)}
        for record in self._records.values():
            storage.keep(record)

    def get(self, key: str) -> R | None:
        return self._records.get(key if self._exact else key.lower())

    def put(self, record: R) -> None:
        """In place of the one with its key, if there is one."""
        before = self._records.get(record.key)
        if before is not None and before is not record:
            before.kept_by(None)
        self._records[record.key] = record
        self._storage.keep(record)

    def remove(self, record: R) -> None:
        if self._records.get(record.key) is record:
            del self._records[record.key]
            self._storage.drop(record)

    def all(self) -> list[R]:
        return list(self._records.values())


def _fields(record: Any) -> dict[str, Any]:
    """``kept`` of a field's metadata is False for what ends with the process."""
    return {
        field.name: getattr(record, field.name)
        for field in dataclasses.fields(record)
        if field.metadata.get("kept", True)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, x509.Certificate):
        return {_CERTIFICATE: base64.b64encode(value.public_bytes(Encoding.DER)).decode()}
    return _fields(value)


def _revived(value: dict[str, Any]) -> Any:
    if value.keys() == {_CERTIFICATE}:
        return x509.load_der_x509_certificate(base64.b64decode(value[_CERTIFICATE]))
    return value
