"""One explanation of an error code, and the sentences that many of them share. Only texts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Explanation:
    """`causes` come likeliest first. `refused` is true when the service itself said no."""

    meaning: str
    causes: tuple[str, ...]
    remedy: str
    refused: bool = False


def own(meaning: str, causes: tuple[str, ...], remedy: str) -> Explanation:
    return Explanation(meaning, causes, remedy)


def service(meaning: str, causes: tuple[str, ...], remedy: str) -> Explanation:
    return Explanation(meaning, causes, remedy, refused=True)


RETRY = "Nothing to change here: the board tries again by itself, later and later."
KEY_AGAIN = (
    "Make the device folder anew with the right key (esp-dps new … --force) and flash it. Check that the registration "
    "id is spelled as at the service and that the id scope is that of the DPS instance."
)
ENROLLMENT = "Look at the enrollment in the DPS instance with this id scope: is it there, enabled, of the right kind?"

Table = dict[tuple[str, str], Explanation]  # by code and step; step "" is any
