"""A plan, for `fleet` and for `flash --all`: a CSV file, read row by row. A bad row is an answer, not the end.
Holds no secret: a plan is passed around and printed, so keys and passwords come from elsewhere."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TextIO

from espdps import inputs
from espdps.credentials import keys
from espdps.errors import WRONG_USE, ToolError, of_system

SECRET = {"device_key", "group_key", "key", "primary_key", "password", "wifi_password", "psk"}
NO_KEY = "none"  # as key_type: no private key and no CSR
_SEPARATOR = re.compile('"?sep=."?', re.I)
_AS_CSV = "save it as CSV UTF-8 in the spreadsheet, or export it as CSV"
_OTHERS = (
    (b"PK\3\4", "a spreadsheet (.xlsx)"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet (.xls)"),
)
LONGEST = 1024  # characters of a field


@dataclass(frozen=True)
class Row:
    """One device: its line in the file, and what the columns say, "" where they say nothing.

    `port` and `chip_id` (hex, lower case, nothing between) are which board is meant; only flashing looks at them.
    """

    line: int
    registration_id: str
    board: str = ""
    key_type: str = ""
    wifi_ssid: str = ""
    device_key_file: str = ""
    onboarding_cert: str = ""
    onboarding_key: str = ""
    port: str = ""
    chip_id: str = ""


COLUMNS = [field.name for field in fields(Row) if field.name != "line"]


@dataclass(frozen=True)
class Bad:
    """A row that cannot be used, and why. `registration_id` as it stands there, cut short."""

    line: int
    registration_id: str
    reason: str


def columns(path: Path) -> tuple[list[str], str]:
    """The names in the first line, and what separates them: a comma, a semicolon or a tab.

    Before it there may be a line such as `sep=;`, by which Excel knows the separator. Raises ToolError if there is no
    registration_id among them, one twice, or one that would hold a secret.
    """
    with _open(path) as file:
        try:
            first = file.readline(100_000)
            if _SEPARATOR.fullmatch(first.strip()):
                first = file.readline(100_000)
            separator = max(",;\t", key=first.count)
            names = [name.strip().lower() for name in next(csv.reader([first], delimiter=separator), [])]
        except (csv.Error, OSError):
            names, separator = [], ","
    if "registration_id" not in names:
        raise ToolError(
            f"{path}, line 1: no column registration_id",
            f"the first line names the columns; known are {', '.join(COLUMNS)}",
            WRONG_USE,
        )
    for name in names:
        if name and names.count(name) > 1:
            raise ToolError(f"{path}, line 1: two columns {name}", "remove one", WRONG_USE)
    if found := SECRET.intersection(names):
        raise ToolError(
            f"{path}, line 1: a column {', '.join(sorted(found))}",
            "no secrets in a plan: take the column out; esp-dps fleet --help says where they come from",
            WRONG_USE,
        )
    return names, separator


def ignored(path: Path) -> list[str]:
    """Columns of the file that mean nothing here. Raises ToolError as `columns` does."""
    return [name for name in columns(path)[0] if name and name not in COLUMNS]


def lines(path: Path) -> int:
    """About how many rows there are, without reading them as rows. Raises ToolError."""
    with _open(path) as file:
        return max(0, sum(chunk.count("\n") for chunk in iter(lambda: file.read(1 << 20), "")) - 1)


def read(path: Path) -> Iterator[Row | Bad]:
    """Every row in turn, one line each; empty lines are none. Raises ToolError for no plan, or one without rows."""
    names, separator = columns(path)
    at = {name: names.index(name) for name in COLUMNS if name in names}
    found = False
    with _open(path) as file:
        # Line by line, so that a quote that is missing costs its own row, and not all that follow.
        named = False  # the first line with names
        for line, text in enumerate(file, 1):
            if not named:
                named = line > 1 or not _SEPARATOR.fullmatch(text.strip())
                continue
            if not text.strip():
                continue
            try:
                (fields,) = csv.reader([text], delimiter=separator, strict=True)
            except csv.Error as error:
                found = True
                yield Bad(line, "", f"not CSV in one line: {error}")
                continue
            if any(field.strip() for field in fields):
                found = True
                yield _row(line, fields, at, len(names))
    if not found:
        raise ToolError(f"{path} has no rows", "one line a device below the names of the columns", WRONG_USE)


def _row(line: int, fields: list[str], at: dict[str, int], width: int) -> Row | Bad:
    values = {name: fields[index].strip() if index < len(fields) else "" for name, index in at.items()}
    registration_id = values["registration_id"]
    shown = inputs.printable(registration_id.encode(errors="replace").decode())[:64]
    while len(fields) > width and not fields[-1].strip():
        fields.pop()  # columns without a name, as a spreadsheet may have them
    if any("\udc80" <= letter <= "\udcff" for field in fields if not field.isascii() for letter in field):
        return Bad(line, shown, "not UTF-8")
    if len(fields) > width:
        return Bad(line, shown, f"{len(fields)} fields for {width} columns")
    if any(len(value) > LONGEST for value in values.values()):
        return Bad(line, shown, f"a field of more than {LONGEST} characters")
    if not registration_id:
        return Bad(line, "", "no registration_id")
    try:
        keys.check_registration_id(registration_id)
    except ToolError as error:
        hidden = " ".join(f"U+{ord(letter):04X}" for letter in registration_id if letter in inputs.INVISIBLE)
        return Bad(
            line, shown, f"no registration id: {error.hint}" + (f"; it has an invisible {hidden}" if hidden else "")
        )
    values["chip_id"] = re.sub("[:-]", "", values.get("chip_id", "").lower())
    return Row(line, **values)


def _open(path: Path) -> TextIO:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ToolError(f"{path} is a pipe or a device, not a file", "name a CSV file", WRONG_USE)
        with path.open("rb") as file:
            begin = file.read(16)
        for mark, what in _OTHERS:
            if begin.startswith(mark):
                raise ToolError(f"{path} is {what}, not CSV", _AS_CSV, WRONG_USE)
        if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # "Unicode text" of a spreadsheet
            return path.open(newline="", encoding="utf-16", errors="replace")
        if b"\0" in begin:
            raise ToolError(f"{path} is not CSV in UTF-8", _AS_CSV, WRONG_USE)
        # A byte-order mark is what spreadsheets begin with; bytes that are no UTF-8 are the matter of their row.
        return path.open(newline="", encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise of_system(error, path, exit_code=WRONG_USE) from None
