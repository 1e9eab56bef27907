"""The event log: every step of every device, for tests, for people and for DIR/events.jsonl.

A key, token or password never gets in here: whoever reports an event names the few fields it has.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .files import open_private

Event = dict[str, Any]
OnEvent = Callable[[Event], object]


class EventLog:
    """Collects events; any thread may read, report or wait.

    ``path``: a JSON lines file that starts afresh. ``on_event`` is called in the thread that reports.
    """

    def __init__(self, path: Path, on_event: OnEvent | None = None) -> None:
        self.events: list[Event] = []
        self._news = threading.Condition()
        self._on_event = on_event
        self._listeners: list[OnEvent] = []
        self._file = open_private(path)

    def report(self, kind: str, connection: int | None, device: str | None, **details: Any) -> None:
        event: Event = {"time": time.time(), "event": kind, "connection": connection, "device": device, **details}
        with self._news:
            self.events.append(event)
            if not self._file.closed:
                self._file.write(json.dumps(event) + "\n")
                self._file.flush()
            for listener in self._listeners:
                listener(event)
            self._news.notify_all()
        if self._on_event is not None:
            self._on_event(event)

    @contextmanager
    def listening(self, listener: OnEvent, past: bool = False) -> Iterator[None]:
        """Calls ``listener`` for each event, in the thread that reports it, from now on or (``past``) from the first
        one. It must be quick, and may not report.
        """
        with self._news:
            for event in self.events if past else ():
                listener(event)
            self._listeners.append(listener)
        try:
            yield
        finally:
            with self._news:
                self._listeners.remove(listener)

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def wait(self, kind: str, timeout: float = 10.0, after: int = 0, **match: Any) -> Event:
        """The first event of this kind, at or behind index ``after``, whose fields equal ``match``; waits for it.

        Raises TimeoutError after ``timeout`` seconds, naming the kinds that did come.
        """
        position = after
        found: Event | None = None

        def look() -> bool:
            nonlocal position, found
            while position < len(self.events):
                event = self.events[position]
                position += 1
                if event["event"] == kind and all(event.get(key) == value for key, value in match.items()):
                    found = event
                    return True
            return False

        with self._news:
            if not self._news.wait_for(look, timeout) or found is None:
                seen = [event["event"] for event in self.events[after:]]
                raise TimeoutError(f"no event {kind} with {match} in {timeout} s; there were {seen[-20:]}")
            return found

    def close(self) -> None:
        with self._news:
            self._file.close()


def line(event: Event) -> str:
    """One readable line for a person: time of day, connection, device, kind, then what is special about it."""
    clock = time.strftime("%H:%M:%S", time.localtime(event["time"])) + f".{int(event['time'] * 1000) % 1000:03d}"
    details = " ".join(
        f"{key}={_short(value)}"
        for key, value in event.items()
        if key not in ("time", "event", "connection", "device") and value is not None
    )
    number = "-" if event["connection"] is None else event["connection"]
    return f"{clock} {number:>4} {event['device'] or '-':<20} {event['event']:<14} {details}".rstrip()


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # repr() of a string keeps control characters that a device sent away from the terminal.
    return repr(text) if isinstance(value, str) and (not text.isprintable() or " " in text) else text
