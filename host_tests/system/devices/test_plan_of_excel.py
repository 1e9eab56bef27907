"""Plans as spreadsheets save them: read where there is one meaning, else named; and manifests they may open."""

from __future__ import annotations

from pathlib import Path

import pytest

from espdps.devices import fleet, plan
from espdps.devices.plan import Bad, Row
from espdps.errors import ToolError

ROWS = [("a-1", "UNIX"), ("a-2", "UNIX")]
TEXT = "registration_id;board\r\na-1;UNIX\r\na-2;UNIX\r\n"


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        ("sep=;\r\n" + TEXT).encode("utf-8-sig"),
        b'"sep=;"\r\n' + TEXT.encode(),
        b"registration_id,board,,\na-1,UNIX,,\n,,,\na-2,UNIX,,,,\n",
        b"registration_id\tboard\ra-1\tUNIX\ra-2\tUNIX",
        "registration_id,board\n\u00a0a-1\u00a0,UNIX\na-2,UNIX\n".encode(),
    ],
)
def test_a_plan_of_a_spreadsheet_is_read(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path / "plan.csv", content)
    assert plan.columns(path)[0][:2] == ["registration_id", "board"] and plan.ignored(path) == []
    rows = list(plan.read(path))
    assert [(row.registration_id, row.board) for row in rows if isinstance(row, Row)] == ROWS and len(rows) == 2, rows


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04\x14\x00\x06\x00" + bytes(300), "spreadsheet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(300), "spreadsheet"),
        (TEXT.encode("utf-16-le"), "UTF-8"),
    ],
)
def test_what_is_no_csv_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(ToolError) as caught:
        plan.columns(written(tmp_path / "plan.csv", content))
    assert says in caught.value.line and "CSV" in caught.value.hint


def test_fields_beyond_the_columns_that_say_something_are_no_accident(tmp_path: Path) -> None:
    (row,) = plan.read(written(tmp_path / "plan.csv", b"registration_id,board\na-1,UNIX,,x\n"))
    assert isinstance(row, Bad) and row.reason == "4 fields for 2 columns"


def test_an_invisible_character_is_shown(tmp_path: Path) -> None:
    (row,) = plan.read(written(tmp_path / "plan.csv", "registration_id\na\u200b1\n".encode()))
    assert isinstance(row, Bad) and "U+200B" in row.reason and "\\u200b" in row.registration_id


def test_a_pipe_is_no_plan(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="not a file"):
        plan.columns(Path("/dev/zero"))


def test_no_cell_of_a_manifest_is_a_formula(tmp_path: Path) -> None:
    path = written(tmp_path / "plan.csv", b'registration_id\n"=HYPERLINK(1)"\n+1\n-1\n@x\n')
    common = fleet.Common(folder=tmp_path, id_scope="0ne00ABCDEF", board="UNIX", roots=b"x", devices=tmp_path / "d")
    fleet.run(path, common, tmp_path / "m.csv", processes=1)
    cells = [line.split(",")[0] for line in (tmp_path / "m.csv").read_text().splitlines()[1:]]
    assert cells == ["'=HYPERLINK(1)", "'+1", "'-1", "'@x"]
