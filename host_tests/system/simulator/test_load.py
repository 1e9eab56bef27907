"""A fleet that registers at the same moment, and clients that mean no good: the simulator stays what it was before."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import threading
import time
import tracemalloc
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from OpenSSL import SSL
from simulator_client import (
    REGISTER,
    WAIT,
    RawClient,
    connect_packet,
    dps_device,
    finish,
    hub_device,
    make_csr,
    packet,
    provision,
    publish_packet,
    subscribe_packet,
)

from espdps.bench import load
from espdps.errors import ToolError
from espdps.simulator import Options, Simulator, serving
from espdps.simulator.wire.mqtt import Session
from espdps.simulator.wire.tls import TlsLink

HUB = "hub-1.localhost"


def test_a_hundred_devices_at_once(tmp_path: Path) -> None:
    """Each with a certificate of its own, or measure() raises; a thousand: python -m espdps.bench load."""
    figures = load.measure(tmp_path, 100)
    assert len(figures.each) == 100
    assert list(figures.each) == sorted(figures.each)
    rows = {row.what: row.value for row in figures.rows()}
    assert rows["devices that register at once"] == 100
    assert rows["half of them after"] <= rows["99 % of them after"] <= rows["all have their own certificate after"]
    assert 0 < rows["memory of a connection in the simulator"] < 2000


def test_anothers_certificate_is_noticed(tmp_path: Path) -> None:
    """Or the test above would mean nothing."""
    one, other = load.fleet(2)
    with serving(tmp_path, Options(assigning=0)) as sim:
        for device in (one, other):
            with dps_device(sim.info, device.id) as client:
                device.state = finish(client, device.id, device.csr)["registrationState"]
        same_name = load.Device(one.id, other.key, b"")
        with dps_device(sim.info, one.id) as client:
            same_name.state = finish(client, one.id, make_csr(one.id))["registrationState"]
    assert load.check(one) != load.check(other)
    chain = other.state["issuedCertificateChain"]
    for state in (
        other.state,
        {**one.state, "issuedCertificateChain": chain},
        {**one.state, "issuedCertificateChain": None},
    ):
        with pytest.raises(ToolError):
            load.check(load.Device(one.id, one.key, one.csr, state))
    with pytest.raises(ToolError, match="another key"):
        load.check(same_name)


LONG = "x" * 65535


def bad_data(draw: random.Random) -> dict[str, list[bytes]]:
    """What is sent on TCP, on TLS, and in the session of a device that was let in."""
    connect = connect_packet("dev", "nobody", "secret")
    return {
        "tcp": [b"", b"\x16\x03\x01", draw.randbytes(500)],  # no TLS, half of it, none at all
        "tls": [
            b"",
            connect[:-3],
            connect_packet(LONG, LONG, LONG),
            connect_packet("dev", LONG, None),
            b"\x10\xff\xff\xff\x7f",  # a CONNECT of 256 MB
            b"\x10\xff\xff\xff\xff\x7f",  # a length of five bytes
            b"\x10" + draw.randbytes(200),
            draw.randbytes(3000),
        ],
        "session": [
            subscribe_packet(LONG),
            publish_packet(LONG, b"", 1),
            publish_packet(REGISTER + LONG[:60_000], draw.randbytes(1000)),
            publish_packet(REGISTER + "1", b"{" * 50_000)[:-7],
            packet(0x30, draw.randbytes(300_000)),
            draw.randbytes(3000),
        ],
    }


def abuse(sim: Simulator, draw: random.Random) -> None:
    """All of it at the same time; returns when the simulator is done with each."""
    start, opened = len(sim.events), 1
    with ExitStack() as stack:
        for kind, all_data in bad_data(draw).items():
            for data in all_data:
                opened += 1
                if kind == "tcp":
                    address = ("127.0.0.1", sim.info["mqtt_port"])
                    stack.enter_context(socket.create_connection(address, WAIT)).sendall(data)
                    continue
                client = stack.enter_context(RawClient(sim.info))
                if kind == "session":
                    client.dps_ready(sim.info, "dev")
                client.send(data)
        loris = stack.enter_context(RawClient(sim.info))
        for byte in connect_packet("dev", "nobody", LONG):
            loris.send(bytes([byte]))
            if not loris.silent(0.02):
                break
        else:
            pytest.fail("a CONNECT in drops went on for ever")
    deadline = time.monotonic() + 60
    while sum(event["event"] == "closed" for event in sim.events[start:]) < opened:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def standing(sim: Simulator) -> dict[str, int]:
    """What the simulator holds: open files, threads, tasks, and what a connection is made of."""

    async def tasks() -> int:
        return len(asyncio.all_tasks()) - 1

    gc.collect()
    kinds = (TlsLink, Session, SSL.Connection, asyncio.StreamReader)
    held = Counter(kind.__name__ for thing in gc.get_objects() for kind in kinds if type(thing) is kind)
    loop = sim._loop
    assert loop is not None
    return {
        **held,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "tasks": asyncio.run_coroutine_threadsafe(tasks(), loop).result(WAIT),
    }


def settles(sim: Simulator, before: dict[str, int]) -> None:
    """Its sockets close just after it has said so."""
    deadline = time.monotonic() + 30
    while (now := standing(sim)) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert now == before


def newcomer(sim: Simulator) -> None:
    """Registers as if nothing were."""
    start = len(sim.events)
    with dps_device(sim.info, "newcomer") as device:
        assert finish(device, "newcomer")["status"] == "assigned"
    sim.wait_event("closed", after=start, device="newcomer")


def test_bad_clients_stop_nobody_and_leave_nothing(tmp_path: Path) -> None:
    draw = random.Random(7)
    with serving(tmp_path / "sim", Options(assigning=0, connect_deadline=1.0)) as sim:
        _, chain = provision(sim.info, "good", tmp_path)
        with hub_device(sim.info, "good", chain) as good:
            abuse(sim, draw)  # what is made once is made by now
            newcomer(sim)
            before = standing(sim)
            tracemalloc.start()
            try:
                memory = []
                for _ in range(3):
                    abuse(sim, draw)
                    good.publish("devices/good/messages/events/", b"still here")  # and its PUBACK
                    newcomer(sim)
                    assert not [event for event in sim.events if event["event"] == "fault"]
                    sim.events.clear()  # which it keeps on purpose
                    settles(sim, before)
                    memory.append(tracemalloc.get_traced_memory()[0])
            finally:
                tracemalloc.stop()
            # One of the 64 KB that each wave sends many times over, kept, would be more.
            assert memory[2] - memory[1] < 50_000, memory
            assert good.disconnected.empty()
