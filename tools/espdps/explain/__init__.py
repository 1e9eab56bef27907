"""What an error code means, what usually causes it, and what to do: one table for monitor, flash and the documents.
Only texts and their look-up; nothing here may decide what the firmware or a tool does next."""

from __future__ import annotations

from espdps.explain.entry import Explanation, own, service
from espdps.explain.numbers import NUMBERS
from espdps.explain.words import FIRMWARE, WORDS

_TABLE = {**WORDS, **NUMBERS}
_APP = own(
    "The application on the board failed: this is the kind of its exception.",
    ("an error in app.py, whose traceback stands above if it ended the application",),
    "Correct app.py and flash it: esp-dps flash DEVICE --port PORT --app-only. The board goes on by itself meanwhile.",
)


def explain(code: str | int, step: str = "") -> Explanation:
    """What `code` means at `step`; both as the firmware's console and the service give them.

    A service number that is not in the table is explained by its class (its first three digits); anything else that is
    not there gets a plain answer rather than an error, since services grow codes.
    """
    if step == "app":
        return _APP
    if step == "firmware":
        return FIRMWARE
    word = str(code)
    for key in ((word, step), (word, ""), (word[:3], "")):
        if key in _TABLE and (key[0] == word or _is_service_number(word)):
            return _TABLE[key]
    if _is_service_number(word):
        return service(
            f"The service refused with {word}, a code not known here.",
            ("see the service's message",),
            "Read the message above; the tracking id helps Azure's support.",
        )
    return own(f"{word!r} is a code not known here.", ("firmware newer than these tools",), "Update the tools.")


def codes() -> list[str]:
    """Every code of the table, in its order."""
    return list(dict.fromkeys(code for code, _ in _TABLE))


def _is_service_number(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) in (3, 6)


def markdown() -> str:
    """The table as the part of a page: a heading for each code, which is the symptom, with causes and what to do."""
    parts = []
    for (code, step), entry in _TABLE.items():
        title = f"`{code}`" + (f" at `{step}`" if step else "")
        said = f"The console says `error … {code} …`" if not step else f"The console says `error {step} {code} …`"
        causes = "\n".join(f"- {cause}" for cause in entry.causes)
        refused = " The service itself said no." if entry.refused else ""
        text = f"### {title}\n\n{said}: {entry.meaning}{refused}\n\n{causes}\n\nWhat to do: {entry.remedy}\n"
        parts.append(text)
    return "\n".join(parts)
