"""The simulator as a whole: DPS and hubs on one MQTT port, the service API, the clock, and how they start and stop.

Listens on loopback only; ``sim.json`` is there exactly while it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, TextIO

from aiohttp import web
from cryptography import x509
from OpenSSL import SSL

from .controls import GROUP, Controls
from .dps.dps import Dps
from .events import EventLog, OnEvent, line
from .files import allow_open, write_private
from .hub.hub import Hub
from .memory.records import ISSUER, NAMESPACE, POLICY, Enrollment, new_key
from .memory.state import State
from .memory.storage import Storage
from .options import Options
from .registry.namespace import Registry
from .service.ca_api import CaApi
from .service.dps_api import ServiceApi
from .service.hub_api import HubApi
from .service.registry_api import RegistryApi
from .trouble.actions import Alert, Troubles
from .trouble.scenario import Script
from .trust.authorities import IssuingAuthority, ServerIdentity
from .trust.certificates import common_name, out_of_date
from .wire.mqtt import Connect, Service, Session
from .wire.ntp import NtpServer
from .wire.tls import TlsLink, server_context

_POLICY = "provisioningserviceowner"
_STOP = 5.0  # seconds for connections to end when the simulator stops
_START = 30.0
_FLEET = 10_000  # connections, if the system allows as many

PORTS = ("mqtt_port", "https_port", "ntp_port")


class Simulator(Controls):
    """DPS, its hubs and its certificate authority, with their files in ``directory`` (made when missing, mode 0700).

    An earlier run's roots, keys and id scope in there are used again, and what Options.state remembers. ``on_event``
    is called for each event, in the simulator's thread mostly. All methods but ``start`` and ``stop`` may be called
    from any thread.
    """

    def __init__(self, directory: Path, options: Options | None = None, on_event: OnEvent | None = None) -> None:
        self.directory = Path(directory).resolve()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.options = options or Options()
        self.info_file = self.directory / "sim.json"
        self.info_file.unlink(missing_ok=True)
        self.info: dict[str, Any] = {}
        self.log = EventLog(self.directory / "events.jsonl", on_event)
        scenario = self.options.scenario
        self._troubles = Troubles(Script(scenario) if scenario.rules else None)
        self._state = State(self.options.hubs, Storage(self.options.state), self.options.links)
        self.set_api(self.options.dps_api, self.options.hub_api)
        self._identity = ServerIdentity(self.directory, self.options.hubs, self.options.address)
        self._authority = IssuingAuthority(self.directory, ISSUER)
        self._secrets = _service_secrets(self.directory / "service.json")
        scope, state, options = self._secrets["id_scope"], self._state, self.options
        self._registry = Registry(state, self._authority, options, scope)
        self._dps = Dps(scope, state, self._registry, options, self.log, self._troubles)
        self._hub = Hub(state, self._registry, options, self.log, self._troubles)
        self._links: set[TlsLink] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._cleanup = contextlib.AsyncExitStack()
        if state.storage.fresh:
            self.add_group(GROUP, self._secrets["group_key"])

    # Running

    async def start(self) -> None:
        """Listens, then writes ``sim.json``. Raises OSError when a port is taken."""
        self._loop = loop = asyncio.get_running_loop()
        tls = server_context(self._identity, self._take)
        options = self.options
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self.log.close)
            stack.callback(self._state.storage.close)
            server = await loop.create_server(
                lambda: self._accept(tls), options.address, options.mqtt_port, backlog=1024
            )
            stack.push_async_callback(self._hang_up)
            stack.callback(server.close)
            ntp, _ = await loop.create_datagram_endpoint(
                lambda: NtpServer(self._troubles), local_addr=(options.address, options.ntp_port)
            )
            stack.callback(ntp.close)
            secrets = self._secrets
            routes = ServiceApi(self._state, _POLICY, secrets["policy_key"], secrets["bearer"]).routes()
            CaApi(self._state).add_to(routes)
            HubApi(self._hub).add_to(routes)
            RegistryApi(self._registry, self._state, self._hub).add_to(routes)
            application = web.Application()
            application.router.add_route("*", "/{path:.*}", routes.answer)
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            context = self._identity.https_context()
            await web.TCPSite(runner, options.address, options.https_port, ssl_context=context).start()
            self.info = {
                "host": "localhost",
                "mqtt_port": server.sockets[0].getsockname()[1],
                "https_port": runner.addresses[0][1],
                "ntp_port": ntp.get_extra_info("sockname")[1],
                "id_scope": self._secrets["id_scope"],
                "roots": str(self._identity.roots),
                "hubs": list(options.hubs),
                "namespace": NAMESPACE,
                "credential_policy": f"{NAMESPACE}/{ISSUER}/{POLICY}",
                "groups": [_group_info(group) for group in self._state.groups()],
                "service_policy": {"name": _POLICY, "key": self._secrets["policy_key"]},
                "service_bearer": self._secrets["bearer"],
            }
            stack.callback(self.info_file.unlink, missing_ok=True)
            write_private(self.info_file, json.dumps(self.info, indent=1).encode())
            self._cleanup = stack.pop_all()

    async def stop(self) -> None:
        """Ends every connection and closes every port; does nothing the second time."""
        await self._cleanup.aclose()

    def _accept(self, tls: SSL.Context) -> TlsLink:
        self._connections += 1
        link = TlsLink(
            self._connections,
            tls,
            self.log,
            self._troubles,
            self.options.connect_deadline,
            self._open,
            self._links.discard,
        )
        self._links.add(link)
        return link

    def _take(self, host: str, certificate: x509.Certificate) -> bool:
        """Whether a client certificate may finish the handshake: all of them, but for the scripted alert."""
        alert = self._troubles.at("hub.tls", common_name(certificate.subject))
        if not isinstance(alert, Alert) or host not in self.options.hubs:
            return True
        return out_of_date(certificate) is None and not self._authority.revoked(certificate)

    def _open(self, link: TlsLink) -> None:
        session = Session(link, self._route, self.log, self._troubles)
        task = asyncio.get_running_loop().create_task(session.run())
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._done(task, link))

    def _done(self, task: asyncio.Task[None], link: TlsLink) -> None:
        self._tasks.discard(task)
        link.session_ended()
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            # A fault of ours, not of the client: it must show in tests and logs, and end this connection only.
            self.log.report("fault", link.number, link.device, error=type(fault).__name__)
            task.get_loop().call_exception_handler({"message": "fault in a session", "exception": fault})

    def _route(self, connect: Connect) -> Service:
        if self._hub.serves(connect.username):
            return self._hub.open(connect)
        return self._dps.open(connect)

    async def _hang_up(self) -> None:
        for link in list(self._links):
            link.abort("the simulator stopped")
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=_STOP)
        # connection_lost of each link runs in the next turns of the loop; their events belong to the log.
        while self._links:
            await asyncio.sleep(0)


def _group_info(group: Enrollment) -> dict[str, str]:
    info = {"id": group.id, "attestation": group.attestation}
    return {**info, "primary_key": group.primary_key} if group.primary_key else info


def _service_secrets(path: Path) -> dict[str, str]:
    """Id scope and keys of the service, of an earlier run when there was one."""
    secrets = {
        "id_scope": f"0ne{os.urandom(4).hex().upper()}",
        "group_key": new_key(),
        "policy_key": new_key(),
        "bearer": token_urlsafe(48),
    }
    if path.exists():
        return secrets | json.loads(path.read_text())
    write_private(path, json.dumps(secrets, indent=1).encode())
    return secrets


@contextlib.contextmanager
def serving(directory: Path, options: Options | None = None, on_event: OnEvent | None = None) -> Iterator[Simulator]:
    """A running simulator in a thread of its own, for tests and for the demo; stopped when the block ends.

    Raises what start() raises.
    """
    simulator = Simulator(directory, options, on_event)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="simulator", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(simulator.start(), loop).result(_START)
        yield simulator
    finally:
        asyncio.run_coroutine_threadsafe(simulator.stop(), loop).result(_START)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_START)
        loop.close()


def main(directory: Path, ports: TextIO, options: Options | None = None, as_json: bool = False) -> None:
    """Serves until SIGINT or SIGTERM, with one printed line an event, at the same ports as the last time in this
    folder: its boards know them, and ``ports`` keeps them, a file for reading and appending that this process alone
    has. ``as_json``: each line is a JSON object, the first one too.

    A port in the options counts before the last one. Raises OSError when a port is taken.
    """
    allow_open(_FLEET)
    ports.seek(0)
    known: dict[str, Any] = {}
    with contextlib.suppress(ValueError, KeyError, TypeError):  # the first time, or written by hand
        before = json.load(ports)
        known = {name: int(before[name]) for name in PORTS}
    options = options or Options()
    known = {name: port for name, port in known.items() if not getattr(options, name)}
    asyncio.run(_serve(directory, replace(options, **known), ports, as_json))


async def _serve(directory: Path, options: Options, ports: TextIO, as_json: bool) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    written = json.dumps if as_json else line
    simulator = Simulator(directory, options, lambda event: print(written(event), flush=True))
    await simulator.start()
    try:
        info = simulator.info
        ports.truncate(0)
        json.dump({name: info[name] for name in PORTS}, ports)
        ports.flush()
        if as_json:
            ready = {name: info[name] for name in ("host", *PORTS, "id_scope", "hubs")}
            print(json.dumps({"time": time.time(), "event": "ready", **ready}), flush=True)
            await stopped.wait()
            return
        print(f"DPS and IoT Hub: mqtts://localhost:{info['mqtt_port']}  service API: https://localhost:"
              f"{info['https_port']}  NTP: {info['ntp_port']}/udp", flush=True)  # fmt: skip
        print(f"id scope {info['id_scope']}, hubs {', '.join(info['hubs'])}; see {simulator.info_file}", flush=True)
        await stopped.wait()
    finally:
        await simulator.stop()
