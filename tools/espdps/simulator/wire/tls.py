"""TLS 1.2 on a TCP connection through memory BIOs, so that we see each record and decide about certificates ourselves.

Any client certificate finishes the handshake, as at Azure: judging it is the service's, at the level of MQTT. A script
may want the handshake to fail instead.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, cast

from cryptography import x509
from OpenSSL import SSL, crypto

from ..events import EventLog
from ..trouble.actions import Cut, Silence, Troubles
from ..trust.authorities import ServerIdentity

_APPLICATION_DATA = 23  # RFC 5246, 6.2.1
_CHUNK = 65536
_LINGER = 1.0  # seconds a client has to close after we did, so that our last words are not lost in a reset
_DRAIN = 30.0  # seconds a client may leave our answers unread


def server_context(identity: ServerIdentity, take: Callable[[str, x509.Certificate], bool]) -> SSL.Context:
    """TLS 1.2 only, RSA-2048 chain, ECDHE, a client certificate asked for and never required.

    ``take``: whether a client certificate may finish the handshake for the host of this name ("" without SNI).
    """

    def verify(tls: SSL.Connection, certificate: crypto.X509, _: int, depth: int, ok: int) -> bool:
        name = (tls.get_servername() or b"").decode("ascii", "replace")
        try:
            return depth > 0 or take(name, certificate.to_cryptography())
        except ValueError:  # OpenSSL reads more than cryptography does: no service will know it
            return True

    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(
        SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    # Each handshake is a full one: a resumed one would carry the certificate of another time.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(b"ECDHE+AESGCM:ECDHE+AES")
    context.use_certificate_chain_file(str(identity.chain_file))
    context.use_privatekey_file(str(identity.key_file))
    context.set_verify(SSL.VERIFY_PEER, verify)
    # No RSA-PSS: the mbedTLS of some builds of MicroPython offers it in TLS 1.2 and then fails on it (-26112).
    # pyOpenSSL has no method for either list, so the binding's own functions are called.
    lib, pointer = cast(Any, SSL)._lib, cast(Any, context)._context
    algorithms = b"RSA+SHA256:RSA+SHA384:ECDSA+SHA256:ECDSA+SHA384"
    if not lib.SSL_CTX_set1_sigalgs_list(pointer, algorithms) or not lib.SSL_CTX_set1_curves_list(
        pointer, b"P-256:P-384"
    ):
        raise ssl.SSLError("OpenSSL does not know the signature algorithms or curves of the service")
    return context


class TlsLink(asyncio.Protocol):
    """One connection: TLS below, a StreamReader of plain bytes above.

    ``on_open`` is called once the handshake is done; it starts whoever reads ``reader`` and calls ``write``, and who
    has to call ``session_ended``.
    Reports ``tls.open`` or ``tls.failed``, and ``closed`` with the figures of the wire.
    """

    def __init__(
        self,
        number: int,
        context: SSL.Context,
        log: EventLog,
        troubles: Troubles,
        deadline: float,
        on_open: Callable[[TlsLink], None],
        on_lost: Callable[[TlsLink], None],
    ) -> None:
        self.number = number
        self.reader = asyncio.StreamReader()
        self.peer_certificate: x509.Certificate | None = None
        self.peer_chain: tuple[x509.Certificate, ...] = ()  # what the client presented besides, in its order
        self.device: str | None = None
        self.graceful = False  # MQTT's DISCONNECT came
        self._log, self._troubles, self._deadline = log, troubles, deadline
        self._on_open, self._on_lost = on_open, on_lost
        self._tls = SSL.Connection(context, None)
        self._tls.set_accept_state()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._reason: str | None = None  # why it ended: the first to say so is right
        self._open = False  # the handshake is done
        self._session = False  # somebody above still works on what came in
        self._lost = False  # TCP is gone
        self._over = False  # what still comes in is no longer looked at
        self._mute = False  # nothing more is said
        self._ended = False  # our side of TCP is closed
        self._budget: int | None = None  # bytes left before the scripted cut
        self._bytes_in = self._bytes_out = 0
        self._records = _RecordCounter()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.reader.set_transport(self._transport)  # pauses the socket while nobody reads
        action = self._troubles.at("tls")
        if isinstance(action, Silence):
            self._over = True
            return
        # The service's patience with a client that does not get as far as a complete CONNECT.
        self._timer = asyncio.get_running_loop().call_later(self._deadline, self._too_slow)
        if isinstance(action, Cut):
            self.cut(action.after)

    def data_received(self, data: bytes) -> None:
        self._bytes_in += len(data)
        if self._over:
            return
        self._records.feed(data)
        self._tls.bio_write(data)
        try:
            if not self._open:
                self._tls.do_handshake()
                self._opened()
            while not self._over:
                self.reader.feed_data(self._tls.recv(_CHUNK))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:  # close_notify
            self.reader.feed_eof()
        except SSL.Error as error:
            self._failed(_reason(error))
            self._flush()  # the alert that tells the client
            self._end()
            return
        self._flush()

    def eof_received(self) -> bool:
        self.reader.feed_eof()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._open and self._records.any and not self._over:
            self._failed("closed in the middle of the handshake")
        self._over = self._lost = True
        self._writable.set()
        self.reader.feed_eof()
        self._report_closed()
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # For the session above

    def accepted(self) -> None:
        """The client is who it says: the deadline of the CONNECT no longer counts."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def session_ended(self) -> None:
        """Nobody reads or writes any more; what the client had sent before it left has been dealt with."""
        self._session = False
        self._report_closed()

    @property
    def writable(self) -> bool:
        """Whether what is written may still reach the client."""
        return not (self._over or self._mute)

    def write(self, data: bytes) -> None:
        if not self.writable or not data:
            return
        self._records.answered()
        self._tls.sendall(data)  # send() takes one record at most
        self._flush()

    async def drain(self) -> None:
        """Waits until the client has taken what was written; one that does not is dropped."""
        try:
            await asyncio.wait_for(self._writable.wait(), _DRAIN)
        except asyncio.TimeoutError:
            self.abort("does not read its answers")

    def close(self, reason: str) -> None:
        """Ends the session: close_notify, then TCP, giving the client a moment to read what was sent."""
        self._reason = self._reason or reason
        if self._over or self._transport is None:
            return
        if self._open:
            try:
                self._tls.shutdown()
            except SSL.Error:
                pass  # the peer closed before us: nobody is left to be notified
            self._flush()
        self._over = True
        self.reader.feed_eof()
        self._end()

    def cut(self, after: int) -> None:
        """Scripted: ends TCP after ``after`` more bytes, without close_notify."""
        self._reason = "cut by script"
        self._budget = after
        if after == 0:
            self._over = True
            self.reader.feed_eof()
            self._end()

    def mute(self) -> None:
        """Scripted silence: the deadlines of the service no longer count, the connection stays."""
        self._reason = "silent by script"
        self._mute = True
        self.accepted()

    def abort(self, reason: str) -> None:
        """Ends TCP at once, whatever the client does."""
        self._reason = self._reason or reason
        self._over = True
        if self._transport is not None:
            self._transport.abort()

    # Inside

    def _end(self) -> None:
        transport = self._transport
        if transport is None or self._ended:
            return
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        transport.resume_reading()  # so that the client's own end is seen
        try:
            transport.write_eof()
        except OSError:  # the client reset the connection, which asyncio is still to find out
            transport.abort()
        self._timer = asyncio.get_running_loop().call_later(_LINGER, transport.abort)

    def _opened(self) -> None:
        self._open = True
        subject: str | None = None
        try:
            self.peer_certificate = self._tls.get_peer_certificate(as_cryptography=True)
            if self.peer_certificate is not None:
                subject = self.peer_certificate.subject.rfc4514_string()
                self.peer_chain = tuple(self._tls.get_peer_cert_chain(as_cryptography=True) or ())
        except ValueError:
            subject = "unreadable"  # OpenSSL takes more than cryptography does: no service will know it
            self.peer_certificate = None
        name = self._tls.get_servername()
        self._log.report(
            "tls.open",
            self.number,
            None,
            peer="{}:{}".format(*cast(asyncio.Transport, self._transport).get_extra_info("peername")[:2]),
            sni=name.decode("ascii", "replace") if name else None,
            version=self._tls.get_protocol_version_name(),
            cipher=self._tls.get_cipher_name(),
            client_cert=subject,
        )
        self._session = True
        self._on_open(self)

    def _report_closed(self) -> None:
        if not self._lost or self._session:
            return
        self._log.report(
            "closed",
            self.number,
            self.device,
            reason=self._reason or "closed by the client",
            graceful=self.graceful,
            records_in=self._records.records,
            flights_in=self._records.flights,
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
        )

    def _failed(self, reason: str) -> None:
        if not self._open:
            self._log.report("tls.failed", self.number, None, reason=reason)
        self._reason = self._reason or f"TLS: {reason}"
        self._over = True
        self.reader.feed_eof()

    def _too_slow(self) -> None:
        if not self._open:
            self._log.report("tls.failed", self.number, None, reason="deadline")
        self.abort("no CONNECT within the deadline")

    def _flush(self) -> None:
        while True:
            try:
                data = self._tls.bio_read(_CHUNK)
            except SSL.WantReadError:
                return
            self._send(data)

    def _send(self, data: bytes) -> None:
        if self._transport is None or self._ended or self._transport.is_closing():
            return
        last = self._budget is not None and len(data) >= self._budget
        if self._budget is not None:
            data = data[: self._budget]
            self._budget -= len(data)
        self._bytes_out += len(data)
        self._transport.write(data)
        if last:
            self.cut(0)


class _RecordCounter:
    """Counts the client's records of application data, and its flights: runs of them that no answer of ours parts."""

    def __init__(self) -> None:
        self.records = self.flights = 0
        self.any = False  # a byte came at all
        self._header = bytearray()
        self._skip = 0
        self._in_flight = False

    def feed(self, data: bytes) -> None:
        self.any = True
        position = 0
        while position < len(data):
            if self._skip:
                step = min(self._skip, len(data) - position)
                self._skip -= step
                position += step
                continue
            self._header.append(data[position])
            position += 1
            if len(self._header) == 5:  # type, version (2), length (2): RFC 5246, 6.2.1
                self._skip = int.from_bytes(self._header[3:], "big")
                if self._header[0] == _APPLICATION_DATA:
                    self.records += 1
                    self.flights += not self._in_flight
                    self._in_flight = True
                self._header.clear()

    def answered(self) -> None:
        self._in_flight = False


def _reason(error: SSL.Error) -> str:
    """OpenSSL's own words, such as ``tlsv1 alert unknown ca``."""
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    words = [str(entry[-1]) for entry in queue if entry and entry[-1]]
    return ", ".join(words) or type(error).__name__
