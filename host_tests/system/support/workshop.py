"""Runs esp-dps within the test's own process, as a script would meet it, and openssl, which judges what it made."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import secrecy

from espdps import cli


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def table(self) -> Any:
        return json.loads(self.out)


def esp_dps(*words: str | Path, stdin: bytes = b"", **environment: str) -> Done:
    """Run a command; there is no terminal, so no prompt. What it prints may hold no secret that was noted."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ESPDPS_")}
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.dict(os.environ, {**clean, "COLUMNS": "80", **environment}, clear=True),
        mock.patch.object(sys, "argv", ["esp-dps", *map(str, words)]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    secrecy.assert_clean(out.getvalue() + err.getvalue(), f"what esp-dps {words[0]} printed")
    return Done(code, out.getvalue(), err.getvalue())


def made(*words: str | Path, **environment: str) -> Done:
    """Run a command that has to work."""
    done = esp_dps(*words, **environment)
    assert done.code == 0, done.err
    return done


def openssl(*words: str | Path, data: bytes = b"") -> str:
    done = subprocess.run(["openssl", *map(str, words)], input=data, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def openssl_judges(*words: str | Path) -> bool:
    return subprocess.run(["openssl", *map(str, words)], capture_output=True, timeout=60, check=False).returncode == 0
