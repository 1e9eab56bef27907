"""Scripted trouble: at which place of the dialogue the service misbehaves, and how.

It only says what shall happen. Nothing here may touch a connection: the part that owns the place does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, get_args


@dataclass(frozen=True)
class Silence:
    """From this place on nothing is answered; the connection stays open until the client leaves."""


@dataclass(frozen=True)
class Cut:
    """``after`` more bytes (TLS records, as on the wire) are sent, then the TCP connection ends without a word."""

    after: int = 0


@dataclass(frozen=True)
class Refuse:
    """The place's own refusal: a CONNACK return code, or 128 for a SUBACK."""

    return_code: int = 5


@dataclass(frozen=True)
class Ignore:
    """This one request is taken and never answered; the connection goes on."""


@dataclass(frozen=True)
class Delay:
    """The answer comes this many seconds later."""

    seconds: float


@dataclass(frozen=True)
class Reconnect:
    """The answer waits until the device has subscribed on another connection."""


@dataclass(frozen=True)
class Alert:
    """A client certificate that is out of date, or by a policy that was revoked, ends the handshake with an alert."""


@dataclass(frozen=True)
class Error:
    """An error answer on ``res/{status}/`` in the service's JSON form. ``info``: what only a hub says besides."""

    status: int
    error_code: int
    message: str
    retry_after: int | None = None
    info: dict[str, Any] | None = None


@dataclass(frozen=True)
class State:
    """A final state on a topic with status 200: ``failed`` (with code and message), ``disabled``, or an unknown one."""

    status: str
    error_code: int = 0
    message: str = ""


@dataclass(frozen=True)
class Raw:
    """An answer with this body, byte for byte: malformed JSON, nothing at all, something huge."""

    body: bytes
    status: int = 200


@dataclass(frozen=True)
class Rid:
    """Answers carry a request id that the device never used: all of them, or (``first``) one ahead of the right one."""

    first: bool = False


@dataclass(frozen=True)
class Vanished:
    """The first poll of a connection finds its operation gone: 404203, and only a new registration helps."""


@dataclass(frozen=True)
class Assigning:
    """This many answers say ``assigning``, with this retry-after (whole seconds, or None for no such property).

    ``status``: another word for it, such as ``unassigned`` or one that nobody knows.
    """

    times: int
    retry_after: int | None = None
    status: str = "assigning"


@dataclass(frozen=True)
class Spelling:
    """The properties of an answer's topic come in reverse order, and retry-after as ``Retry-After``."""


@dataclass(frozen=True)
class Late:
    """Each answer is preceded by the one before it, once more: it came late, to a request that is over."""


@dataclass(frozen=True)
class Early:
    """A message that arrives before the SUBACK. The topic has to match the filter that is subscribed to."""

    topic: str
    body: bytes


FLOODS = ("pings", "topics", "large", "acknowledgements")


@dataclass(frozen=True)
class Flood:
    """What nobody asked for comes as fast as it is taken, for so many seconds, and only then the answer: one of FLOODS.

    ``pings`` are PINGRESPs, ``topics`` messages on topics that are none of a hub's, ``large`` messages of 16 to 256 KB,
    ``acknowledgements`` PUBACKs of what was never sent.
    """

    kind: str
    seconds: float = 10.0


@dataclass(frozen=True)
class Profile:
    """What registrationState.connectionProfile says of an assigned device; None is null."""

    value: Any


CHAINS = (
    "absent",
    "null",
    "empty",
    "reversed",
    "leaf-only",
    "no-root",
    "longer",
    "other-key",
    "other-name",
    "expired",
    "not-yet-valid",
    "garbage",
    "pem",
    "base64-pem",
    "lines",
)


@dataclass(frozen=True)
class Chain:
    """What is wrong with the issued certificate chain, or unusual: one of CHAINS.

    ``leaf-only`` has 1 element, ``no-root`` 2, ``longer`` 4; 3 is as usual. ``lines``: each ends with a line end.
    """

    kind: str


@dataclass(frozen=True)
class Form:
    """How the hub writes a renewed chain: the bare list of certificates, and PEM in place of base64 DER."""

    bare: bool = False
    pem: bool = False


@dataclass(frozen=True)
class Shift:
    """The answer of the time server is this many seconds off."""

    seconds: int


Action = (
    Silence
    | Cut
    | Refuse
    | Ignore
    | Delay
    | Reconnect
    | Alert
    | Error
    | State
    | Raw
    | Rid
    | Vanished
    | Assigning
    | Spelling
    | Late
    | Early
    | Flood
    | Profile
    | Chain
    | Form
    | Shift
)

# By the name that a scenario has for each.
ACTIONS: Mapping[str, type] = {kind.__name__.lower(): kind for kind in get_args(Action)}

# What can be scripted where. The places without a prefix belong to DPS.
_ANSWER: tuple[type, ...] = (Silence, Cut, Delay, Error, State, Raw, Rid)
PLACES: Mapping[str, tuple[type, ...]] = {
    "tls": (Silence, Cut),  # TCP is accepted, TLS never begins (Cut: ends after n bytes)
    "connect": (Silence, Cut, Delay, Refuse),
    "subscribe": (Silence, Cut, Delay, Refuse, Early),
    "register": _ANSWER,
    "poll": (*_ANSWER, Vanished),
    "answer": (Spelling, Late),  # each answer of DPS, whatever it says
    "assigning": (Assigning,),
    "assigned": (Profile,),
    "certificate": (Chain,),
    "hub.connect": (Silence, Cut, Delay, Refuse),
    "hub.subscribe": (Silence, Cut, Delay, Refuse, Early, Flood),
    "hub.telemetry": (Silence, Cut, Delay, Flood),
    "hub.tls": (Alert,),  # handshakes that name a hub
    "hub.twin": (Silence, Cut, Delay, Ignore, Error),  # requests about the twin
    "hub.method": (Silence, Cut, Delay),  # the answer to a method
    "hub.renewal": (Silence, Cut, Delay, Ignore, Error),  # the request of a certificate
    "hub.renewal.result": (Cut, Ignore, Delay, Reconnect, Error),  # what follows the 202
    "hub.certificate": (Chain,),
    "hub.answer": (Form,),
    "ntp": (Silence, Shift),
}


_FINAL = ("assigned", "failed", "disabled")
_NOT_FINAL = ("unassigned", "assigning", "assigned")  # of them the last goes well, and is nothing to script


@dataclass(frozen=True)
class Trouble:
    """Place → action. ``Trouble({"register": Error(401, 401002, "Unauthorized")})``; empty is a healthy service.

    Raises ValueError for an unknown place, chain or state, TypeError for an action that cannot happen there.
    """

    at: Mapping[str, Action] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for place, action in self.at.items():
            if place not in PLACES:
                raise ValueError(f"no place {place!r}: one of {', '.join(PLACES)}")
            if not isinstance(action, PLACES[place]):
                names = ", ".join(kind.__name__ for kind in PLACES[place])
                raise TypeError(f"{place}: cannot be {type(action).__name__}, only {names}")
            if isinstance(action, Chain) and action.kind not in CHAINS:
                raise ValueError(f"no chain {action.kind!r}: one of {', '.join(CHAINS)}")
            if isinstance(action, Flood) and action.kind not in FLOODS:
                raise ValueError(f"no flood {action.kind!r}: one of {', '.join(FLOODS)}")
            if isinstance(action, State) and action.status in _NOT_FINAL:
                raise ValueError(f"state: {action.status} is not the end of a registration that went wrong")
            if isinstance(action, Assigning) and action.status in _FINAL:
                raise ValueError(f"assigning: {action.status} is the end of a registration")


class Script(Protocol):
    """What a scenario makes of it; see scenario.py."""

    def turn(self, device: str) -> None: ...

    def at(self, place: str, device: str) -> Action | None: ...


class Troubles:
    """The trouble in force: per registration id, else for all devices, else as a script says. Safe from any thread."""

    def __init__(self, script: Script | None = None) -> None:
        self._lock = threading.Lock()
        self._script = script
        self._all = Trouble()
        self._own: dict[str, Trouble] = {}

    def set(self, trouble: Trouble, device: str | None = None) -> None:
        """Replaces the trouble of one registration id, or of all that have none of their own."""
        with self._lock:
            if device is None:
                self._all = trouble
            else:
                self._own[device.lower()] = trouble

    def get(self, device: str | None = None) -> Trouble:
        with self._lock:
            return self._all if device is None else self._own.get(device.lower(), self._all)

    def of(self, device: str, places: Iterable[str]) -> Trouble:
        """The actions for these places, decided now for what follows later."""
        actions = {place: self.at(place, device) for place in places}
        return Trouble({place: action for place, action in actions.items() if action is not None})

    def at(self, place: str, device: str | None = None) -> Action | None:
        """The action for this place, if any."""
        action = self.get(device).at.get(place)
        if action is None and self._script is not None:
            with self._lock:
                action = self._script.at(place, (device or "").lower())
        return action

    def turn(self, device: str) -> None:
        """The device has sent another packet: what is scripted for so many times counts it."""
        if self._script is not None:
            with self._lock:
                self._script.turn(device.lower())
