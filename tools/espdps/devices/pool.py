"""Work spread over processes, in order, with a few batches under way at any time however many there are.
Leaves no process behind: a worker ends when it cannot hear whoever started it, even if that was killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from espdps.errors import ToolError

AHEAD = 4  # batches a worker has: one it works on and some that wait, so that it never waits for the one who gives


def cores() -> int:
    """How many processes can run at the same time."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


class Pool:
    """Processes that each call `work(setup, batch)`; both are pickled, and `work` is a module's function.

    Use it by `with`; entering waits until all of them are ready. They are spawned, not forked: a fork would inherit
    threads' locks and open files. Ctrl-C is for whoever started them.
    """

    def __init__(self, work: Callable[[Any, Any], Any], setup: Any, processes: int) -> None:
        self._work, self._setup, self._count = work, setup, processes
        self._workers: list[tuple[Any, Connection]] = []

    def __enter__(self) -> Pool:
        context = multiprocessing.get_context("spawn")
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited, from a worker's first moment on
        try:
            for _ in range(self._count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, self._work, self._setup), daemon=True)
                process.start()
                theirs.close()  # so that a worker's end shows at ours
                self._workers.append((process, ours))
        finally:
            signal.signal(signal.SIGINT, before)
        for _, connection in self._workers:
            _receive(connection)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, connection in self._workers:
            connection.close()
        for process, _ in self._workers:
            process.join()  # it ends with the batch it has

    def run(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The result for each batch, in the order of the batches.

        Raises what the work raised, and ToolError when a worker was killed.
        """
        source = iter(batches)
        waiting: deque[list[Any]] = deque()  # for each batch under way: nothing yet, or its one result
        given: dict[Connection, deque[list[Any]]] = {connection: deque() for _, connection in self._workers}

        def give(connection: Connection) -> None:
            for batch in source:
                slot: list[Any] = []
                try:
                    connection.send(batch)
                except OSError:
                    raise _lost() from None
                waiting.append(slot)
                given[connection].append(slot)
                return

        for _ in range(AHEAD):
            for connection in given:
                give(connection)
        while waiting:
            # One that holds up all the others must not let them run ahead without end.
            if len(waiting) < 8 * AHEAD * len(given):
                for connection, slots in given.items():
                    if len(slots) < AHEAD:
                        give(connection)
            for ready in wait([connection for connection, slots in given.items() if slots]):
                assert isinstance(ready, Connection)
                given[ready].popleft().append(_receive(ready))
            while waiting and waiting[0]:
                yield waiting.popleft()[0]


def _receive(connection: Connection) -> Any:
    try:
        result, error = connection.recv()
    except (EOFError, OSError):
        raise _lost() from None
    if error is not None:
        raise error
    return result


def _lost() -> ToolError:
    return ToolError("a worker process was killed", "was memory short? start again; what is complete stays")


def _serve(connection: Connection, work: Callable[[Any, Any], Any], setup: Any) -> None:
    """A worker's life: ready, then an answer for each batch, until there is nobody to answer."""
    try:
        connection.send((None, None))
        while True:
            batch = connection.recv()
            answer: tuple[Any, Exception | None]
            try:
                answer = work(setup, batch), None
            except (ToolError, OSError) as error:
                answer = None, error
            connection.send(answer)
    except (EOFError, OSError):
        pass  # whoever started this is gone, or wants no more
