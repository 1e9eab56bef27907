"""A scenario: rules out of a TOML file, each a trouble at a place, for some devices, so many times or by lot.

It only says what shall happen, as trouble.py does, and the same again with the same seed.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from dataclasses import MISSING, dataclass, fields
from fnmatch import fnmatchcase
from typing import Any, get_args, get_type_hints

from . import actions
from .actions import ACTIONS, Action, Trouble

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_RULE = ("at", "do", "devices", "skip", "count", "probability")
# Handshakes and time servers know no device that could be counted by: each time they are asked is a new one.
_UNCOUNTED = ("tls", "hub.tls", "ntp")


@dataclass(frozen=True)
class Rule:
    """``action`` happens at ``place`` to devices whose registration id matches ``devices``, a pattern as of file names:
    after ``skip`` occasions of each device, ``count`` times (None for ever), each with this ``probability``.
    """

    place: str
    action: Action
    devices: str = "*"
    skip: int = 0
    count: int | None = None
    probability: float = 1.0


@dataclass(frozen=True)
class Scenario:
    """Rules in order: of those for one place, the first that still applies counts."""

    rules: tuple[Rule, ...] = ()
    seed: int = 0


def parse(text: str) -> Scenario:
    """Reads TOML: ``seed``, and ``[[trouble]]`` tables with ``at`` (a place), ``do`` (an action in lower case), what
    that action has besides, and of a rule what is not to be as in Rule.

    Raises ValueError that names the rule at fault.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"not TOML: {error}") from None
    tables, seed = document.pop("trouble", []), document.pop("seed", 0)
    if document or not isinstance(seed, int) or not isinstance(tables, list):
        raise ValueError("a scenario has seed (a number) and [[trouble]] tables, nothing else")
    rules = []
    for number, table in enumerate(tables, 1):
        try:
            rules.append(_rule(table))
        except (AttributeError, TypeError, ValueError) as error:  # a body that is no text has no encode()
            raise ValueError(f"trouble {number}: {error}") from None
    return Scenario(tuple(rules), seed)


def _rule(table: Any) -> Rule:
    """Raises TypeError and ValueError."""
    if not isinstance(table, dict):
        raise TypeError("not a table")
    place, name = str(table.get("at")), str(table.get("do"))
    if name not in ACTIONS:
        raise ValueError(f"do: one of {', '.join(sorted(ACTIONS))}")
    action = _made(ACTIONS[name], name, {key: value for key, value in table.items() if key not in _RULE})
    Trouble({place: action})  # judges the two together
    rule = Rule(place, action, **{key: table[key] for key in _RULE[2:] if key in table})
    if not isinstance(rule.devices, str):
        raise ValueError("devices: a pattern such as greenhouse-*")
    if not all(value is None or (type(value) is int and value >= 0) for value in (rule.skip, rule.count)):
        raise ValueError("skip, count: 0 or more occasions")
    if type(rule.probability) not in (int, float) or not 0 <= rule.probability <= 1:
        raise ValueError("probability: 0 to 1")
    return rule


def _made(kind: type, name: str, given: dict[str, Any]) -> Action:
    """An action with these fields. A body is text in the file and bytes on the wire."""
    hints = get_type_hints(kind, vars(actions))
    known = {field.name: field for field in fields(kind)}
    for key in given.keys() - known.keys():
        raise ValueError(f"{name} has no {key}" + (f", only {', '.join(known)}" if known else ""))
    for key in (key for key, field in known.items() if field.default is MISSING and key not in given):
        raise ValueError(f"{name} needs {key}")
    values = {key: value.encode() if hints[key] is bytes else value for key, value in given.items()}
    for key, value in values.items():
        allowed = get_args(hints[key]) or (hints[key],)
        if Any not in allowed and type(value) not in allowed and not (type(value) is int and float in allowed):
            raise ValueError(f"{key}: {value!r} will not do")
    action: Action = kind(**values)
    return action


class Script:
    """A scenario as it is played. For one thread at a time."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._turns: Counter[str] = Counter()
        self._decided: dict[tuple[str, str], tuple[int, Action | None]] = {}
        self._seen: Counter[tuple[int, str]] = Counter()
        self._done: Counter[tuple[int, str]] = Counter()
        self._lots: dict[tuple[int, str], random.Random] = {}

    def turn(self, device: str) -> None:
        """A packet of the device is a new occasion: until the next one a place is decided once, however often asked."""
        self._turns[device] += 1

    def at(self, place: str, device: str) -> Action | None:
        turn = self._turns[device]
        decided = self._decided.get((place, device))
        if decided is not None and decided[0] == turn and place not in _UNCOUNTED:
            return decided[1]
        action = self._decide(place, device)
        self._decided[place, device] = (turn, action)
        return action

    def _decide(self, place: str, device: str) -> Action | None:
        for number, rule in enumerate(self._scenario.rules):
            if rule.place != place or not fnmatchcase(device, rule.devices.lower()):
                continue
            key = (number, device)
            self._seen[key] += 1
            if self._seen[key] <= rule.skip or (rule.count is not None and self._done[key] >= rule.count):
                continue
            lot = self._lots.setdefault(key, random.Random(f"{self._scenario.seed} {number} {device}"))
            if rule.probability < 1 and lot.random() >= rule.probability:
                continue
            self._done[key] += 1
            return rule.action
        return None
