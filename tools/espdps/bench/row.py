"""One measured figure, and what to do when there is none. It only holds them."""

from __future__ import annotations

from dataclasses import dataclass

AGAIN = "measure again, with nothing else at work; if it stays so, make test says what is broken"


@dataclass(frozen=True)
class Row:
    """`value` in `unit`; `bar` what it is held to ("" without one), `met` whether it is, None without a bar.

    `by`: whose figure it is where several stand side by side. `value` None: there is none, and `note` says why.
    """

    what: str
    value: float | None
    unit: str
    bar: str = ""
    met: bool | None = None
    by: str = ""
    note: str = ""
