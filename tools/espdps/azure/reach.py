"""Whether the endpoint of a device can be reached from this PC as a board would: clock, name, port, TLS by its roots.
Signs nobody in and sends no secret; each wait is bounded by WAIT."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from espdps import files
from espdps.credentials import formats
from espdps.devices import folders
from espdps.devices.folder_doctor import SOON, Finding
from espdps.explain import explain

WAIT = 5.0  # seconds for each answer
NTP_PORT = 123
NO_TLS = "Something else answers there, or something on the way swallows it."
# OpenSSL's X509_V_ERR_…: not yet valid, expired, wrong host name, wrong address
_CODES = {9: "tls-date", 10: "tls-date", 62: "tls-name", 64: "tls-name"}
REMEDIES = {  # as explain has them, but this is a PC
    "tls-root": "Make the device folder anew with the right --roots, or without for Azure; or something in the network "
    "opens TLS connections. Never turn the check off.",
    "tls-name": explain("tls-name").remedy,
    "tls-date": "Check this PC's clock; after that the dates of the server's certificate and of roots.pem.",
}
_NTP_EPOCH = 2208988800  # seconds from 1900 to 1970 (RFC 5905)
_LARGEST_OFFSET = 300  # seconds; certificates are taken that much early, by the firmware as well


def examine(folder: Path) -> list[Finding]:
    """What stands in the way, or is worth knowing; the last one says what was reached. Raises ToolError."""
    return list(_findings(folders.read_json(folder / "device.json"), files.read(folder / "roots.pem")))


def _findings(config: dict[str, Any], roots: bytes) -> Iterator[Finding]:
    yield from _clock(config.get("ntp", ["pool.ntp.org"]))
    host, port = str(config.get("dps_host", folders.AZURE_HOST)), int(config.get("port", folders.PORT))
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # the second for what is no name at all
        yield Finding(host, "its name cannot be resolved", explain("dns").remedy)
        return
    where = f"{host}:{port}"
    refusals: list[ssl.SSLCertVerificationError] = []
    for root in formats.certificates(roots, "roots.pem"):
        try:  # one root at a time, so that it is known which one answered
            leaf = _handshake(host, port, root)
        except ssl.SSLCertVerificationError as refused:
            refusals.append(refused)
            continue
        except _NoTls as failed:
            yield Finding(where, f"connected, but no TLS: {failed}", f"{NO_TLS} {explain('tls').remedy}")
            return
        except OSError as failed:
            yield Finding(where, f"no connection: {failed.strerror or 'no answer in time'}", explain("tcp").remedy)
            return
        days = (leaf.not_valid_after_utc - datetime.now(timezone.utc)).days
        name = root.subject.rfc4514_string()
        yield Finding(where, f"reached; root {name}; its certificate has {days} days left", "", wrong=False)
        if days < SOON:
            yield Finding(where, f"the server's certificate ends in {days} days", "its owner has to renew it", False)
        return
    # What the right root is not content with says more than that the others are not it.
    worst = max(refusals, key=lambda refused: refused.verify_code in _CODES)
    remedy = REMEDIES[_CODES.get(worst.verify_code, "tls-root")]
    yield Finding(where, f"its certificate is not taken: {worst.verify_message}", remedy)


class _NoTls(Exception):
    """The other end takes connections, and no handshake. Its text says what happened, without a full stop."""


def _handshake(host: str, port: int, root: x509.Certificate) -> x509.Certificate:
    """The server's certificate. Raises SSLCertVerificationError, _NoTls, and OSError if there is no connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies, the host name too
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # as on boards
    context.load_verify_locations(cadata=root.public_bytes(Encoding.PEM).decode())
    with socket.create_connection((host, port), WAIT) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=host) as line:
                der = line.getpeercert(True)
        except ssl.SSLCertVerificationError:
            raise
        except TimeoutError:
            raise _NoTls(f"it is silent for {WAIT:.0f} s") from None
        except ssl.SSLError as failed:
            raise _NoTls((failed.reason or "handshake failed").replace("_", " ").lower()) from None
        except OSError as failed:
            raise _NoTls(failed.strerror or "it closed the connection") from None
    assert der
    return x509.load_der_x509_certificate(der)


def _clock(servers: Any) -> Iterator[Finding]:
    for server in servers if isinstance(servers, list) else []:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
            line.settimeout(WAIT)
            try:
                line.connect((str(server), NTP_PORT))
                line.send(b"\x1b" + bytes(47))  # version 3, client
                answer = line.recv(512)
            except (OSError, UnicodeError):
                continue
        # Of stratum 0 is an answer without a time (RFC 5905, 7.4), and a time of 0 is none.
        if len(answer) >= 48 and answer[1] and any(answer[40:44]):
            offset = struct.unpack("!I", answer[40:44])[0] - _NTP_EPOCH - time.time()
            if abs(offset) > _LARGEST_OFFSET:
                yield Finding("this PC's clock", f"is {abs(offset):.0f} s off {server}", "set it")
            return
    yield Finding("ntp", "no time server of device.json answered", explain("ntp").remedy, wrong=False)
