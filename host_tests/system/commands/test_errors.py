"""The one exception of the tools: each says what to do next, and it survives a worker process."""

from __future__ import annotations

import ast
import errno
import os
import pickle
from pathlib import Path

from espdps.errors import NEXT, NEXT_ELSE, ToolError, of_system
from espdps.paths import ROOT


def test_each_has_a_hint() -> None:
    """The hint is a required argument, so what is left to see is that none is an empty text."""
    calls = 0
    for path in (ROOT / "tools" / "espdps").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ToolError":
                calls += 1
                hint = [*node.args[1:2], *(given.value for given in node.keywords if given.arg == "hint")]
                assert hint and getattr(hint[0], "value", " ") != "", f"{path}:{node.lineno}: no hint"
    assert calls > 200


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
