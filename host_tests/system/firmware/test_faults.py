"""The proxy itself: without a fault it changes nothing, with one it does that one thing at that place."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from faults import ACTIONS, BOARD, SERVER, Fault, Proxy

WAIT = 10.0  # seconds for what has to come
SILENT = 0.2  # seconds for what must not come
ASK, ANSWER = b"what a board asks", b"what a service answers"


@dataclass
class Wire:
    """A proxy with what is before and behind it."""

    proxy: Proxy
    service: socket.socket
    ends: list[socket.socket]

    def connect(self) -> dict[str, socket.socket]:
        """A new connection: the end that bytes to "board" and to "server" arrive at."""
        board = socket.create_connection(("127.0.0.1", self.proxy.port), WAIT)
        server, _ = self.service.accept()
        server.settimeout(WAIT)
        self.ends += [board, server]
        return {BOARD: board, SERVER: server}


@pytest.fixture
def wire() -> Iterator[Wire]:
    with socket.create_server(("127.0.0.1", 0)) as service:
        service.settimeout(WAIT)
        with Proxy(service.getsockname()[1]) as proxy:
            made = Wire(proxy, service, [])
            yield made
        for end in made.ends:
            end.close()


def other(to: str) -> str:
    return BOARD if to == SERVER else SERVER


def read(end: socket.socket, size: int) -> bytes:
    """This much, or less if the other side ends before."""
    data = b""
    while len(data) < size and (more := end.recv(size - len(data))):
        data += more
    return data


def reach(ends: dict[str, socket.socket], to: str) -> None:
    """One question and its answer; for the way to the board one more question: its second flight is next."""
    ends[BOARD].sendall(ASK)
    assert read(ends[SERVER], len(ASK)) == ASK
    ends[SERVER].sendall(ANSWER)
    assert read(ends[BOARD], len(ANSWER)) == ANSWER
    if to == BOARD:
        ends[BOARD].sendall(ASK)
        assert read(ends[SERVER], len(ASK)) == ASK


def silent(end: socket.socket) -> bool:
    end.settimeout(SILENT)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(WAIT)
    return False


def test_without_a_fault_nothing_changes(wire: Wire) -> None:
    ends = wire.connect()
    for to in (SERVER, BOARD):
        sent = os.urandom(300_000)
        sender = threading.Thread(target=ends[other(to)].sendall, args=(sent,))
        sender.start()
        assert read(ends[to], len(sent)) == sent
        sender.join()
    # An end is passed on, and leaves the other direction open.
    ends[BOARD].shutdown(socket.SHUT_WR)
    assert ends[SERVER].recv(1) == b""
    ends[SERVER].sendall(ANSWER)
    assert read(ends[BOARD], len(ANSWER)) == ANSWER
    ends[SERVER].close()
    assert ends[BOARD].recv(1) == b""
    assert not wire.proxy.struck


def test_flights_are_what_one_sends_until_the_other_answers(wire: Wire) -> None:
    ends = wire.connect()
    reach(ends, SERVER)
    for _ in range(2):
        ends[BOARD].sendall(ASK)
        assert read(ends[SERVER], len(ASK)) == ASK
    assert [link.flights for link in wire.proxy.links] == [{SERVER: [len(ASK), 2 * len(ASK)], BOARD: [len(ANSWER)]}]
    wire.proxy.arm(None)
    assert wire.proxy.links == []


@pytest.mark.parametrize("to", [SERVER, BOARD])
@pytest.mark.parametrize("byte", [0, 5])
def test_cut(wire: Wire, to: str, byte: int) -> None:
    wire.proxy.arm(Fault("cut", to, flight=2, byte=byte))
    ends = wire.connect()
    reach(ends, to)
    assert not wire.proxy.struck
    ends[other(to)].sendall(b"0123456789")
    assert read(ends[to], 99) == b"01234"[:byte]
    assert ends[other(to)].recv(1) == b""
    assert wire.proxy.struck


@pytest.mark.parametrize("to", [SERVER, BOARD])
def test_cut_after_a_flight(wire: Wire, to: str) -> None:
    wire.proxy.arm(Fault("cut", to, flight=2, byte=10))
    ends = wire.connect()
    reach(ends, to)
    ends[other(to)].sendall(b"0123456789")
    assert read(ends[to], 99) == b"0123456789"
    assert ends[other(to)].recv(1) == b""


@pytest.mark.parametrize("to", [SERVER, BOARD])
def test_reset(wire: Wire, to: str) -> None:
    wire.proxy.arm(Fault("reset", to, flight=2))
    ends = wire.connect()
    reach(ends, to)
    ends[other(to)].sendall(b"0123456789")
    for end in ends.values():
        with pytest.raises(ConnectionResetError):
            end.recv(1)


@pytest.mark.parametrize("to", [SERVER, BOARD])
def test_stall(wire: Wire, to: str) -> None:
    wire.proxy.arm(Fault("stall", to, flight=2, byte=5))
    ends = wire.connect()
    reach(ends, to)
    ends[other(to)].sendall(b"0123456789")
    assert read(ends[to], 5) == b"01234"
    ends[to].sendall(ANSWER)
    assert silent(ends[other(to)]) and silent(ends[to])
    # Not even an end passes.
    ends[BOARD].close()
    assert silent(ends[SERVER])


@pytest.mark.parametrize("to", [SERVER, BOARD])
def test_half(wire: Wire, to: str) -> None:
    wire.proxy.arm(Fault("half", to, flight=2, byte=5))
    ends = wire.connect()
    reach(ends, to)
    ends[other(to)].sendall(b"0123456789")
    assert read(ends[to], 99) == b"01234"
    ends[to].sendall(ANSWER)
    assert read(ends[other(to)], len(ANSWER)) == ANSWER
    ends[other(to)].sendall(ASK)
    assert silent(ends[other(to)])


@pytest.mark.parametrize("to", [SERVER, BOARD])
def test_delay(wire: Wire, to: str) -> None:
    wire.proxy.arm(Fault("delay", to, flight=2, byte=5, seconds=SILENT * 2))
    ends = wire.connect()
    reach(ends, to)
    sent = time.monotonic()
    ends[other(to)].sendall(b"0123456789")
    assert read(ends[to], 5) == b"01234"
    assert silent(ends[to])
    assert read(ends[to], 5) == b"56789"
    assert time.monotonic() - sent >= SILENT * 2
    ends[to].sendall(ANSWER)
    assert read(ends[other(to)], len(ANSWER)) == ANSWER


@pytest.mark.parametrize("to", [SERVER, BOARD])
def test_split(wire: Wire, to: str) -> None:
    wire.proxy.arm(Fault("split", to, flight=2, byte=100))
    ends = wire.connect()
    reach(ends, to)
    sent = os.urandom(2000)
    ends[other(to)].sendall(sent)
    pieces = []
    while sum(map(len, pieces)) < len(sent):
        pieces.append(ends[to].recv(4096))
        assert pieces[-1]
    assert b"".join(pieces) == sent
    assert len(pieces) > 2  # the network may join some bytes again, but not all


@pytest.mark.parametrize("to", [SERVER, BOARD])
@pytest.mark.parametrize("byte", [0, 9, 15])
def test_corrupt(wire: Wire, to: str, byte: int) -> None:
    wire.proxy.arm(Fault("corrupt", to, flight=2, byte=byte, xor=0x80))
    ends = wire.connect()
    reach(ends, to)
    sent, got = bytes(range(20)), b""
    for half in (sent[:10], sent[10:]):  # a place counts on behind its flight
        ends[other(to)].sendall(half)
        got += read(ends[to], 10)
        ends[to].sendall(ANSWER)
        assert read(ends[other(to)], len(ANSWER)) == ANSWER
    assert [i for i in range(20) if got[i] != sent[i]] == [byte]
    assert got[byte] == sent[byte] ^ 0x80


def test_the_second_connection_and_only_once(wire: Wire) -> None:
    wire.proxy.arm(Fault("cut", SERVER, connection=2))
    first = wire.connect()
    reach(first, SERVER)
    second = wire.connect()
    second[BOARD].sendall(ASK)
    assert second[BOARD].recv(1) == b"" and second[SERVER].recv(1) == b""
    reach(wire.connect(), BOARD)
    reach(first, BOARD)
    assert [link.struck for link in wire.proxy.links] == [False, True, False]
    # What is left of earlier connections counts no more.
    wire.proxy.arm(Fault("cut", BOARD, connection=1))
    reach(first, BOARD)
    assert not wire.proxy.struck


def test_a_service_that_is_not_there(wire: Wire) -> None:
    wire.service.close()
    with socket.create_connection(("127.0.0.1", wire.proxy.port), WAIT) as board:
        assert board.recv(1) == b""


def test_a_fault_can_be_pasted_and_drawn_again() -> None:
    drawn = [Fault.random(seed, connections=2) for seed in range(200)]
    assert {fault.action for fault in drawn} == set(ACTIONS)
    assert {fault.connection for fault in drawn} == {1, 2} and {fault.to for fault in drawn} == {SERVER, BOARD}
    assert all(eval(repr(fault)) == fault for fault in drawn)
    assert [Fault.random(seed, connections=2) for seed in range(200)] == drawn
