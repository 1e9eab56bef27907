"""Text that people give, in files, at prompts and as options: decoded, and freed of what programs put around it.
What cannot be read without a guess is refused. No exception text holds what was read."""

from __future__ import annotations

import codecs
import re
import string
import unicodedata

from espdps.errors import WRONG_USE, ToolError

INVISIBLE = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\u00ad"
HOST = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.I)
_AROUND = string.whitespace + "\u00a0" + INVISIBLE
_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019"}
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]*://)?([^/:?#@\s]+?)\.?(?::([0-9]{1,5}))?/?", re.I)


def without_mark(content: bytes) -> bytes:
    """The same in UTF-8 without a byte-order mark; what is not marked as text stays as it is."""
    if content.startswith(_UTF16):
        return content.decode("utf-16", "replace").encode()
    return content.removeprefix(codecs.BOM_UTF8)


def decode(content: bytes, what: str) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte-order mark. Raises ToolError that calls it `what`."""
    try:
        text = content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError:
        raise ToolError(f"{what} is not text in UTF-8", "save it as UTF-8, or copy it again") from None
    if "\0" in text:
        raise ToolError(f"{what} is not text, or is UTF-16 without a byte-order mark", "save it as UTF-8")
    return text


def bare(text: str) -> str:
    """The text without spaces, invisible characters and quotes around it."""
    text = text.strip(_AROUND)
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip(_AROUND)
    return text


def secret_line(text: str, what: str) -> str:
    """A passphrase or password, in which spaces count: one line, without its line end. Raises ToolError."""
    text = text.removeprefix("\ufeff").strip("\r\n")
    if "\n" in text or "\r" in text:
        raise ToolError(f"the {what} has more than one line", "give it in one line", WRONG_USE)
    if any(unicodedata.category(letter) == "Cc" and letter != "\t" for letter in text):
        raise ToolError(f"the {what} has a control character", "type it by hand instead of copying it", WRONG_USE)
    for letter in text[:1] + text[-1:]:
        if letter in INVISIBLE:
            hint = "type it by hand instead of copying it"
            raise ToolError(f"the {what} begins or ends with the invisible U+{ord(letter):04X}", hint, WRONG_USE)
    return text


def host(text: str, what: str, port: int) -> str:
    """A host name, also out of a URL whose port is `port` or not given. Raises ToolError that calls it `what`."""
    name = bare(text)
    if ";" in name or "sharedaccess" in name.lower():
        hint = "give what is between HostName= and the first semicolon, and keep the rest secret"
        raise ToolError(f"{what} is a connection string, not a host name", hint, WRONG_USE)
    found = _URL.fullmatch(name)
    if not found or not HOST.fullmatch(found[1]):
        shown = "" if "=" in name else f" {name!r:.80}"  # with that sign it may be a key
        raise ToolError(f"{what}{shown} is not a host name", "give a name such as dps.example.com", WRONG_USE)
    if found[2] and int(found[2]) != port:
        raise ToolError(
            f"{what} {name!r:.80} has a port", "give the name without it; new and fleet have --port", WRONG_USE
        )
    return found[1]


def printable(text: str) -> str:
    """The same with escapes for what a screen does not show, or obeys."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
