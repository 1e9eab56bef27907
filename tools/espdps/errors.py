"""The one exception of the host tools: what is wrong, what to do, which exit code.
Its texts end up on a screen, so no key, token or password may ever get into one."""

from __future__ import annotations

FAILED = 1
WRONG_USE = 2
REFUSED = 3


class ToolError(Exception):
    """Something a user has to know. `message` names the thing at fault, `hint` says what to do about it."""

    def __init__(self, message: str, hint: str = "", exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    @property
    def line(self) -> str:
        """Message and hint, for where there is room for one line."""
        return f"{self.message}: {self.hint}" if self.hint else self.message
