"""One fault at every place of the dialogues with DPS and Hub: a board says in bounded time what failed, and the next
attempt works, without a person and with the identity it had."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import secrecy
from faults import ACTIONS, BOARD, HARMLESS, SERVER, Fault, Proxy
from running import command_of
from units import edit, make_unit, stored

from espdps import explain
from espdps.board import flash
from espdps.devices import profiles
from espdps.paths import FIRMWARE
from espdps.simulator import Assigning, Options, Simulator, Trouble, serving

WHOLE = bool(os.environ.get("ESP_DPS_SWEEP"))
HEAP = "56k"  # what an ESP32 starts with
TIMEOUT = 2  # seconds, of device.json
# One fault can use up two deadlines: one for the first byte of a packet, one for the rest of it.
DEADLINES = 2
CLEAN = 5.0  # seconds an attempt may take besides, on a busy machine, with DPS's pause of 2 s between two questions
HANGS = 30.0  # seconds after which an attempt is given up
AT_ONCE = 3  # boards: they wait most of the time
# How an attempt may end that a fault has met; every other code would blame something that is in order.
CODES = ("timeout", "closed", "tls", "tls-alert", "tls-root", "memory")
ENDS = ("cut", "reset", "stall", "half")  # actions after which nothing comes any more
LEAK = 6144  # bytes of heap that may be gone after an attempt that went well: modules stay loaded, all else is a leak
PLACES = 24 if WHOLE else 2  # in each direction, for cuts and for corruptions
SEEDS = range(100 if WHOLE else 10)
SWEPT = ("micropython-32", "circuitpython", "cpython") if WHOLE else ("micropython-32", "circuitpython")
# A hub that breaks off the handshake may refuse the certificate, so the board asks DPS.
SENT_TO_DPS = ("tls-alert",)


@dataclass(frozen=True)
class Dialogue:
    """`start`: what the driver is told; `connection`: which one of the attempt has the fault; `assigning`: answers of DPS
    that put the board off; `first`: the flights before are another dialogue's."""

    start: str
    connection: int
    assigning: int = 0
    first: int = 1


DIALOGUES = {
    "dps, asking again": Dialogue("blank", 1, assigning=1, first=6),  # the longest, so it begins first
    "dps": Dialogue("blank", 1),
    "hub, first time": Dialogue("blank", 2),
    "hub": Dialogue("cached", 1),
}

# Faults that ever failed, by dialogue, each with a word on what went wrong; they are tried first.
REGRESSIONS: dict[Dialogue, list[Fault]] = {
    # Back to DPS with the heap in pieces by the session before: no room for its answer, and a restart.
    DIALOGUES["hub"]: [Fault("corrupt", SERVER, 1, 2, 200, xor=255)],
}


@dataclass
class Attempt:
    """How one attempt of a board went, by its own words."""

    number: int
    code: str
    step: str
    seconds: float
    free: int  # bytes of heap
    text: str

    @property
    def asked_dps(self) -> bool:
        return "] dps." in self.text


class Board:
    """The firmware in a process of its own behind a proxy; a new one when it ran out of memory."""

    def __init__(self, sim: Simulator, unit: Path, proxy: Proxy, runtime: str, library: Path) -> None:
        self.sim, self.unit, self.proxy = sim, unit, proxy
        self.restarts = -1
        self.free: list[int] = []  # heap after each attempt of this process
        self._command, self._environment = command_of(runtime, "fault_driver.py", unit, HEAP, library)
        self._number = 0
        self._start()

    def _start(self) -> None:
        self.restarts += 1
        self.free = []
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(self._process, self._lines), daemon=True)
        self._reader.start()

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def attempt(self, start: str, fault: Fault | None = None) -> Attempt:
        """One attempt; AssertionError if it does not end, or ends in anything but a result."""
        self._number += 1
        self.proxy.arm(fault)
        assert self._process.stdin
        self._process.stdin.write(f"{start} {self._number}\n")
        self._process.stdin.flush()
        text = ""
        while True:
            try:
                line = self._lines.get(timeout=HANGS)
            except queue.Empty:
                raise AssertionError(f"{fault} hangs after\n{text}") from None
            text += line
            secrecy.assert_clean(text, f"what the board printed with {fault}")
            assert line, f"{fault}: the program ended\n{text}"
            if line.startswith("result "):
                break
        _, code, step, took, free = line.split()
        if code == "memory":
            self.stop()
            self._start()
        else:
            self.free.append(int(free))
        return Attempt(self._number, code, step, int(took) / 1000, int(free), text)

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def connected(self) -> int:
        """How many connections of this board the hub has taken."""
        return sum(event["event"] == "hub.connect" and event["device"] == self.unit.name for event in self.sim.events)

    def delivered(self, number: int) -> bool:
        """Whether the hub has the message with this number."""
        return any(
            event["event"] == "hub.telemetry"
            and event["device"] == self.unit.name
            and json.loads(event["body"]) == {"count": number}
            for event in self.sim.events
        )


@contextlib.contextmanager
def board(sim: Simulator, folder: Path, name: str, runtime: str, library: Path) -> Iterator[Board]:
    """A board that is well and has its identity."""
    unit = make_unit(folder, sim, name)
    with Proxy(sim.info["mqtt_port"]) as proxy:
        edit(unit / "device.json", port=proxy.port, timeout=TIMEOUT)
        made = Board(sim, unit, proxy, runtime, library)
        try:
            first = made.attempt("blank")
            assert first.code == "ok", first.text
            yield made
        finally:
            made.stop()


def begin(board: Board, dialogue: Dialogue, fault: Fault | None = None) -> Attempt:
    """An attempt as the dialogue begins, DPS putting the board off as often as it says."""
    if dialogue.assigning:
        board.sim.set_trouble(board.unit.name, Trouble({"assigning": Assigning(dialogue.assigning, retry_after=2)}))
    try:
        attempt = board.attempt(dialogue.start, fault)
        if attempt.code == "memory" and not board.proxy.struck:  # the heap was in pieces; a new one comes as far
            attempt = board.attempt(dialogue.start, fault)
        return attempt
    finally:
        board.sim.set_trouble(board.unit.name, Trouble())


def suffer(board: Board, dialogue: Dialogue, fault: Fault) -> tuple[str, float]:
    """A faulty attempt and a clean one. How the first ended ("ok", an error's code, or "not reached"), and its seconds."""
    files, open_files, restarts = stored(board.unit), board.open_files(), board.restarts
    bad = begin(board, dialogue, fault)
    reached = board.proxy.struck
    what = f"{fault}, {dialogue}:\n{bad.text}"
    assert bad.seconds <= DEADLINES * TIMEOUT + CLEAN + fault.seconds, what
    if bad.code == "ok":
        assert board.delivered(bad.number), what
    else:
        assert bad.code in CODES and bad.step != "-", what
    if bad.code not in ("ok", "memory"):
        assert reached and not (fault.action in HARMLESS and fault.seconds < TIMEOUT), what
    cached = dialogue.start == "cached"
    if cached and bad.asked_dps:
        assert any(f"hub.connect {code}" in bad.text for code in SENT_TO_DPS), what
    elif cached:
        assert stored(board.unit) == files, what

    before = board.connected()
    good = board.attempt("cached")
    # What was on its way when the fault struck may arrive only now, and the Hub takes it for the newer connection of the
    # two: then it saw both of them come.
    if good.code == "memory" or (good.code == "closed" and board.connected() == before + 2):
        good = board.attempt("cached")
    what += f"and then:\n{good.text}"
    assert good.code == "ok" and board.delivered(good.number), what
    # What the board had before, or has stored since, is not asked for again.
    if cached or "] certificate " in bad.text:
        assert not good.asked_dps, what
    if board.restarts == restarts:
        assert board.open_files() <= open_files, what
        assert good.free >= board.free[0] - LEAK, what

    end = bad.code if reached else "not reached"
    return "ok by way of DPS" if cached and bad.asked_dps and end == "ok" else end, bad.seconds


def plan(board: Board, dialogue: Dialogue) -> list[Fault]:
    """Every fault of a dialogue, as it goes when all is well; without ESP_DPS_SWEEP each action once in each flight."""
    number = dialogue.connection
    assert begin(board, dialogue).code == "ok"
    sizes = board.proxy.links[number - 1].flights
    draw = random.Random(4)
    faults = list(REGRESSIONS.get(dialogue, ()))
    for flight in range(dialogue.first, max(map(len, sizes.values())) + 1):
        both = [to for to in (SERVER, BOARD) if flight <= len(sizes[to])]
        for action in ACTIONS:
            for to in both if WHOLE else [draw.choice(both)]:
                faults.append(Fault(action, to, number, flight, xor=draw.randint(1, 255)))
        # The flight has passed, and what the other side says to it is lost.
        for action in ENDS if WHOLE else [draw.choice(ENDS)]:
            for to in both if WHOLE else [draw.choice(both)]:
                faults.append(Fault(action, to, number, flight, sizes[to][flight - 1]))
    for to in (SERVER, BOARD):
        faults.append(Fault("delay", to, number, draw.randint(dialogue.first, len(sizes[to])), seconds=TIMEOUT * 1.5))
        begins, ends = sum(sizes[to][: dialogue.first - 1]), sum(sizes[to])
        for _ in range(PLACES):
            faults.append(Fault("cut", to, number, byte=draw.randrange(begins, ends)))
            faults.append(Fault("corrupt", to, number, byte=draw.randrange(begins, ends), xor=draw.randint(1, 255)))
    return faults


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The firmware as a board has it."""
    folder = tmp_path_factory.mktemp("mpy")
    for name, content in flash.compile_library(FIRMWARE, profiles.load("ESP32_GENERIC").mpy).items():
        path = folder / name.removeprefix("/lib/")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return folder


def sweep(
    folder: Path, library: Path, runtime: str, dialogue: Dialogue, plan: Callable[[Board, Dialogue], list[Fault]]
) -> str:
    """Some boards at once suffer every fault that plan(board, dialogue) names; how many there were and how they ended."""
    with serving(folder / "sim", Options(assigning=0)) as sim, contextlib.ExitStack() as stack:
        ids = [f"contoso-{n:04}" for n in range(AT_ONCE)]
        ready = [stack.enter_context(board(sim, folder, id, runtime, library)) for id in ids]
        waiting: queue.Queue[Fault] = queue.Queue()
        for fault in plan(ready[0], dialogue):
            waiting.put(fault)
        tried = waiting.qsize()

        def work(mine: Board) -> list[tuple[str, float]]:
            results = []
            with contextlib.suppress(queue.Empty):
                while True:
                    results.append(suffer(mine, dialogue, waiting.get_nowait()))
            return results

        with ThreadPoolExecutor(AT_ONCE) as pool:
            results = [result for part in pool.map(work, ready) for result in part]
        restarts = sum(mine.restarts for mine in ready)
    assert len(results) == tried > 0
    assert restarts <= tried // 2  # a heap in pieces is not how a board lives
    longest = max(seconds for _, seconds in results)
    ends = ", ".join(f"{count} {end}" for end, count in Counter(end for end, _ in results).most_common())
    return f"{tried} tried, the longest took {longest:.1f} s, {restarts} restarts for memory: {ends}"


@pytest.mark.sweep
@pytest.mark.parametrize("runtime", SWEPT)
@pytest.mark.parametrize("name", DIALOGUES)
def test_every_fault_passes(
    runtime: str, name: str, tmp_path: Path, library: Path, record_property: Callable[[str, object], None]
) -> None:
    figure = sweep(tmp_path, library, runtime, DIALOGUES[name], plan)
    record_property("figure", f"faults, {name}, {runtime}: {figure}")


@pytest.mark.sweep
@pytest.mark.parametrize("runtime", SWEPT)
def test_any_fault_passes(
    runtime: str, tmp_path: Path, library: Path, record_property: Callable[[str, object], None]
) -> None:
    faults = [Fault.random(seed, connections=2) for seed in SEEDS]
    figure = sweep(tmp_path, library, runtime, Dialogue("blank", 0), lambda *_: faults)
    record_property("figure", f"faults, by seed, {runtime}: {figure}")


def test_a_person_finds_each_end_explained() -> None:
    assert set(CODES) <= set(explain.codes())
