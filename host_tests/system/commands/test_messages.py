"""Every error line of the tools says what to do next, and all of them are on one page."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
from workshop import esp_dps

from espdps.errors import NEXT, NEXT_ELSE, ToolError, of_system
from espdps.messages import GROUPS, PACKAGE, SOMETHING, Source, every, markdown
from espdps.paths import ROOT

BEGIN, END = "<!-- begin: esp-dps explain --messages -->\n", "<!-- end -->"


def found(folder: Path, text: str) -> list[tuple[str, tuple[str, ...], tuple[int, ...]]]:
    """What is read out of a package with the tools' errors.py and this module."""
    (folder / "errors.py").write_bytes((PACKAGE / "errors.py").read_bytes())
    (folder / "one.py").write_text("from espdps.errors import FAILED, REFUSED, WRONG_USE, ToolError\n" + text)
    return [one.row for one in Source(folder).messages() if one.where.startswith("espdps.one:")]


def test_each_says_what_to_do_next() -> None:
    assert len(every()) > 250
    for one in every():
        assert one.hints and all(hint.strip(" .;:") for hint in one.hints), f"{one.where}: {one.text}: no next action"
        assert one.text.strip(" .;:" + SOMETHING), f"{one.where}: nothing names what is at fault"


def test_none_is_made_where_it_is_not_seen() -> None:
    """As text, the source has as many calls as were found: no other name for the class, no helper that hides one."""
    seen = {tuple(one.where.rsplit(":", 1)) for one in every()}
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(["espdps", *path.relative_to(PACKAGE).with_suffix("").parts])
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if "ToolError(" in line and not line.startswith("class "):
                assert (module, str(number)) in seen, f"{path}:{number}"
    assert {"espdps.credentials.formats", "espdps.azure.service_client", "espdps.errors"} <= {module for module, _ in seen}


def test_no_text_is_an_argument_alone() -> None:
    """Else the text would stand at a caller, which the table does not show."""
    for one in every():
        assert not (one.text.startswith("{") and one.text.endswith("}") and one.text.count("{") == 1), one.where


def test_every_module_is_in_a_group() -> None:
    assert {one.group for one in every()} == GROUPS.keys()


def test_the_page_is_the_table() -> None:
    page = (ROOT / "docs" / "messages.md").read_text()
    generated = page.partition(BEGIN)[2].partition(END)[0]
    assert generated == markdown() == esp_dps("explain", "--messages").out, (
        "docs/messages.md has drifted: put the output of esp-dps explain --messages between its markers"
    )
    assert esp_dps("explain", "--messages", "--markdown").code == esp_dps("explain", "404", "--messages").code == 2


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('raise ToolError("a", "b")', [("a", ("b",), (1,))]),
        ('raise ToolError(f"{path}: {error.strerror}", "b", exit_code=WRONG_USE)', [("{path}: …", ("b",), (2,))]),
        ('raise ToolError("a", "")', [("a", ("",), (1,))]),
        ('B = "c"\nraise ToolError("a", "b" if x else B)', [("a", ("b", "c"), (1,))]),
        ('from espdps import errors\nraise errors.ToolError("a", hint="b")', [("a", ("b",), (1,))]),
        ("def f():\n hint = 'b'\n if x:\n  hint = ''\n raise ToolError('a', hint)", [("a", ("b", ""), (1,))]),
        ("def f():\n hint = 'b'\n g(hint)\n hint = 'c'\n raise ToolError('a', hint)", [("a", ("c",), (1,))]),
        (
            "def f():\n if x:\n  m, h = g()\n  t = 'a'\n  u = 'b'\n else:\n  t = 'c'\n  u = 'd'\n raise ToolError(t, u)",
            [("a", ("b",), (1,)), ("c", ("d",), (1,))],
        ),
        ("def h():\n return 'b' if x else ''\nraise ToolError('a', h())", [("a", ("b", ""), (1,))]),
        ("T = {'1': 'b'}\nraise ToolError('a', T.get(x, 'c'))", [("a", ("1: b", "c"), (1,))]),
        ("class L(ToolError):\n pass\nclass M(L):\n pass\nraise M('a', 'b', WRONG_USE)", [("a", ("b",), (2,))]),
        (
            "class R(ToolError):\n def __init__(self, m, h):\n  super().__init__(m, h, REFUSED)\nraise R('a', 'b')",
            [("a", ("b",), (3,))],
        ),
        (
            "class E(Exception):\n pass\ndef f():\n raise E('a')\ntry:\n f()\nexcept E as e:\n raise ToolError(str(e), 'b')",
            [("a", ("b",), (1,))],
        ),
    ],
)
def test_reading(tmp_path: Path, text: str, rows: list[tuple[str, tuple[str, ...], tuple[int, ...]]]) -> None:
    assert found(tmp_path, text) == rows


def test_an_error_of_the_system_has_its_words_and_an_action() -> None:
    for number, action in NEXT.items():
        made = of_system(OSError(number, os.strerror(number), "/there"))
        assert (made.message, made.hint, made.exit_code) == (f"/there: {os.strerror(number)}", action, 1)
    other = of_system(OSError(errno.EPIPE, os.strerror(errno.EPIPE)), Path("here"), after="all else stays", exit_code=2)
    assert other.message == f"here: {os.strerror(errno.EPIPE)}" and other.exit_code == 2
    assert other.hint == f"{NEXT_ELSE}; all else stays"
    assert of_system(OSError("words only")).message == "this machine: words only"


def test_it_comes_whole_out_of_a_worker() -> None:
    there = pickle.loads(pickle.dumps(ToolError("a", "b", 3)))
    assert (str(there), there.message, there.hint, there.exit_code) == ("a", "a", "b", 3)
