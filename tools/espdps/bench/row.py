"""One measured figure. It only holds it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """`value` in `unit`; `bar` what it is held to ("" without one), `met` whether it is, None without a bar."""

    what: str
    value: float
    unit: str
    bar: str = ""
    met: bool | None = None
