"""The simulator as a whole: DPS and hubs on one MQTT port, the service API, the clock, and how they start and stop.

Listens on loopback only; ``sim.json`` is there exactly while it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from aiohttp import web
from cryptography import x509
from OpenSSL import SSL

from .attestation import load
from .ca import IssuingAuthority, ServerIdentity, common_name, out_of_date
from .dps import Allocate, Dps
from .events import Event, EventLog, OnEvent, line
from .files import allow_open, write_private
from .https import ServiceApi
from .hub import Hub
from .hub_api import HubApi
from .messages import CloudMessage, Properties
from .mqtt import Connect, Service, Session
from .ntp import NtpServer
from .options import Options
from .scenario import Script
from .state import Device, Enrollment, State, new_key
from .tls import TlsLink, server_context
from .trouble import Alert, Trouble, Troubles
from .twin import Twin

GROUP = "boards"  # the enrollment group that is there from the start
_POLICY = "provisioningserviceowner"
_STOP = 5.0  # seconds for connections to end when the simulator stops
_START = 30.0
_FLEET = 10_000  # connections, if the system allows as many

PORTS = ("mqtt_port", "https_port", "ntp_port")


class Simulator:
    """DPS, its hubs and its certificate authority, with their files in ``directory`` (made when missing, mode 0700).

    An earlier run's roots, keys and id scope in there are used again. ``on_event`` is called for each event, in the
    simulator's thread mostly. All methods but ``start`` and ``stop`` may be called from any thread.
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
        self._state = State(self.options.hubs)
        self._identity = ServerIdentity(self.directory, self.options.hubs, self.options.address)
        self._authority = IssuingAuthority(self.directory)
        self._secrets = _service_secrets(self.directory / "service.json")
        self._dps = Dps(self._secrets["id_scope"], self._state, self._authority, self.options, self.log, self._troubles)
        self._hub = Hub(self._state, self._authority, self.options, self.log, self._troubles)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._links: set[TlsLink] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._cleanup = contextlib.AsyncExitStack()
        self.add_group(GROUP, self._secrets["group_key"])

    # Running

    async def start(self) -> None:
        """Listens, then writes ``sim.json``. Raises OSError when a port is taken."""
        self._loop = loop = asyncio.get_running_loop()
        tls = server_context(self._identity, self._take)
        options = self.options
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self.log.close)
            server = await loop.create_server(
                lambda: self._accept(tls), options.address, options.mqtt_port, backlog=1024
            )
            stack.push_async_callback(self._hang_up)
            stack.callback(server.close)
            ntp, _ = await loop.create_datagram_endpoint(
                lambda: NtpServer(self._troubles), local_addr=(options.address, options.ntp_port)
            )
            stack.callback(ntp.close)
            application = ServiceApi(self._state, _POLICY, self._secrets["policy_key"]).application()
            HubApi(self._hub).add_to(application)
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
                "groups": [_group_info(group) for group in self._state.groups()],
                "service_policy": {"name": _POLICY, "key": self._secrets["policy_key"]},
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

    # What happened

    @property
    def events(self) -> list[Event]:
        return self.log.events

    def wait_event(self, kind: str, timeout: float = 10.0, after: int = 0, **match: Any) -> Event:
        """Blocks until there is an event of this kind whose fields equal ``match``; see EventLog.wait.

        Not for the simulator's own thread. Raises TimeoutError.
        """
        return self.log.wait(kind, timeout, after, **match)

    # What may go wrong

    @property
    def trouble(self) -> Trouble:
        """The scripted trouble of all devices that have none of their own; set it at any time."""
        return self._troubles.get()

    @trouble.setter
    def trouble(self, trouble: Trouble) -> None:
        self._troubles.set(trouble)

    def set_trouble(self, registration_id: str, trouble: Trouble) -> None:
        """Scripted trouble of one device. At ``tls`` and ``ntp`` no device is known yet, so those are for all only."""
        self._troubles.set(trouble, registration_id)

    # Enrollments and devices

    def add_group(
        self, id: str, primary_key: str | None = None, *, signers: Iterable[bytes] = (), **fields: Any
    ) -> Enrollment:
        """An enrollment group by symmetric key (base64, made when None), or by X.509 if there are ``signers``.

        ``signers``: one or two certificates, PEM or DER, of roots or intermediates; ``fields`` as in state.Enrollment.
        Raises ValueError.
        """
        return self._add(Enrollment(id, True, primary_key or "", certificates=tuple(map(load, signers)), **fields))

    def add_individual(
        self, registration_id: str, key: str | None = None, *, certificates: Iterable[bytes] = (), **fields: Any
    ) -> Enrollment:
        """An individual enrollment by symmetric key (base64, made when None), or by X.509 with ``certificates``.

        ``certificates``: one or two client certificates, PEM or DER; ``fields`` as in state.Enrollment.
        Raises ValueError.
        """
        known = tuple(map(load, certificates))
        return self._add(Enrollment(registration_id, False, key or "", certificates=known, **fields))

    @property
    def allocate(self) -> Allocate | None:
        """Called once a registration, in the simulator's thread, with what custom allocation is told of the device:
        registrationId, x509 or symmetricKey, and payload if it sent one. What it returns may have a ``payload`` for the
        device, and ``iotHubHostName``, one of the linked hubs.
        """
        return self._dps.allocate

    @allocate.setter
    def allocate(self, allocate: Allocate | None) -> None:
        self._dps.allocate = allocate

    def group(self, id: str = GROUP) -> Enrollment:
        """Raises KeyError."""
        return self._enrollment(id, group=True)

    def set_enrollment(self, id: str, group: bool = False, **fields: Any) -> None:
        """Changes fields of an enrollment, such as ``provisioning_status="disabled"`` or ``certificate_seconds=60``.

        Raises KeyError, TypeError for an unknown field, ValueError as state.Enrollment.
        """
        enrollment = self._enrollment(id, group)
        replace(enrollment, **fields)  # judges them
        for name, value in fields.items():
            setattr(enrollment, name, value)

    def remove_enrollment(self, id: str, group: bool = False) -> None:
        """Raises KeyError."""
        if not self._state.remove_enrollment(id, group):
            raise KeyError(id)

    def device(self, id: str) -> Device:
        """The hub's record of a device. Raises KeyError."""
        found = self._state.devices(id)
        if not found:
            raise KeyError(id)
        return found[0]

    def set_device(self, id: str, enabled: bool) -> None:
        """Enables or disables a device in its hub; a disabled one is disconnected. Raises KeyError."""
        device = self.device(id)
        device.enabled = enabled
        if not enabled:
            self._call(self._hub.hang_up, device, "device was disabled")

    def delete_device(self, id: str) -> None:
        """Takes a device out of its hub and disconnects it. Raises KeyError."""
        device = self.device(id)
        self._state.remove_device(device)
        self._call(self._hub.hang_up, device, "device was deleted")

    def twin(self, id: str) -> Twin:
        """The twin of a device, with all that it reported. Raises KeyError."""
        return self.device(id).twin

    def send_message(self, id: str, body: bytes, properties: Properties | None = None) -> str:
        """Queues a message to a device; its message id. Raises KeyError, and ServiceError for one that is too much."""
        message = CloudMessage(body, properties or {})
        self._do(self._hub.send, self.device(id), message)
        return message.id

    def desire(self, id: str, patch: dict[str, Any]) -> int:
        """Changes desired properties of a device; their new version. Raises KeyError, ServiceError."""
        version: int = self._do(self._hub.desire, self.device(id), patch)
        return version

    def call_method(self, id: str, name: str, payload: Any = None, timeout: float = 30.0) -> tuple[int, Any]:
        """Calls a method of a device; its status and payload. Raises KeyError, and ServiceError when the device is not
        there, does not take methods, or does not answer within so many seconds.
        """
        call = self._hub.call(self.device(id), name, json.dumps(payload).encode(), timeout)
        return self._result(call)

    def revoke_policy(self) -> None:
        """Revokes the credential policy that all enrollments share: another intermediate issues from now on, and the
        hubs refuse what was issued before. Who is connected stays.
        """
        self._authority.rotate()

    def set_hubs(self, *hubs: str) -> None:
        """The hubs that are there from now on, of those in the options. Another one refuses all devices and is not
        linked any more: a registration that finds its hub gone moves as its enrollment's ``reprovision`` says. The
        records of a hub outlive its absence.

        Raises ValueError for a name that is not in the options.
        """
        if not set(hubs) <= set(self.options.hubs):
            raise ValueError(f"hubs: some of {', '.join(self.options.hubs)}")
        gone = set(self._state.hubs) - set(hubs)
        self._state.hubs = hubs
        for hub in gone:
            self._call(self._hub.hang_up_all, hub, "the hub is gone")

    def _add(self, enrollment: Enrollment) -> Enrollment:
        self._state.put_enrollment(enrollment)
        return enrollment

    def _enrollment(self, id: str, group: bool) -> Enrollment:
        enrollment = self._state.enrollment(id, group)
        if enrollment is None:
            raise KeyError(id)
        return enrollment

    def _do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns or raises in the event loop's thread, where connections live."""

        async def do() -> Any:
            return function(*arguments)

        return self._result(do())

    def _result(self, work: Coroutine[Any, Any, Any]) -> Any:
        if self._loop is None:
            work.close()
            raise RuntimeError("the simulator does not run")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _call(self, function: Any, *arguments: Any) -> None:
        """Runs a function in the event loop's thread, where connections live."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)


def _group_info(group: Enrollment) -> dict[str, str]:
    info = {"id": group.id, "attestation": group.attestation}
    return {**info, "primary_key": group.primary_key} if group.primary_key else info


def _service_secrets(path: Path) -> dict[str, str]:
    """Id scope and keys of the service, of an earlier run when there was one."""
    if path.exists():
        secrets: dict[str, str] = json.loads(path.read_text())
        return secrets
    secrets = {"id_scope": f"0ne{os.urandom(4).hex().upper()}", "group_key": new_key(), "policy_key": new_key()}
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


def main(directory: Path, options: Options | None = None, as_json: bool = False) -> None:
    """Serves until SIGINT or SIGTERM, with one printed line an event, at the same ports as the last time in this
    folder: its boards know them. One simulator a folder. ``as_json``: each line is a JSON object, the first one too.

    Raises OSError when a port is taken, BlockingIOError when another simulator serves this folder.
    """
    allow_open(_FLEET)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(directory / "ports.json", "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.seek(0)
        ports: dict[str, Any] = {}
        with contextlib.suppress(ValueError, KeyError, TypeError):  # the first time, or written by hand
            before = json.load(file)
            ports = {name: int(before[name]) for name in PORTS}
        asyncio.run(_serve(directory, replace(options or Options(), **ports), file, as_json))


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
