"""CircuitPython's ssl on OpenSSL: PEM files by path, roots as one text, a socket that is anything with its methods.

What mbedTLS calls an error has its number and its words here. Like the original, it verifies unless nothing was given
to verify by."""

from __future__ import annotations

import ssl
from typing import Any

import cp_machine

UNVERIFIED = -0x2700
CLOSED = -0x7280
FATAL_ALERT = -0x7780
BAD_CERTIFICATE = -0x2180
BAD_KEY = -0x3D00
ILLEGAL = -0x6600  # stands for every other fault of the handshake
_UNTRUSTED = "The certificate is not correctly signed by the trusted CA"
# OpenSSL's verify codes (X509_V_ERR_*) in mbedTLS's words
_VERIFY = {
    9: "The certificate validity starts in the future",
    10: "The certificate validity has expired",
    62: "The certificate Common Name (CN) does not match with the expected CN",
}


class SSLContext:
    check_hostname = False

    def __init__(self) -> None:
        self.set_default_verify_paths()
        self._pair: tuple[str, str] | None = None

    def set_default_verify_paths(self) -> None:
        self._roots: str | None = None

    def load_verify_locations(self, cafile: None = None, capath: None = None, cadata: str = "") -> None:
        """Kept as it is: what it holds is looked at by wrap_socket()."""
        if cafile is not None or capath is not None:
            raise NotImplementedError("cafile")
        if not isinstance(cadata, str):
            raise TypeError("can't convert to str implicitly")
        self._roots = cadata

    def load_cert_chain(self, certfile: str, keyfile: str | None = None) -> None:
        """Read, OSError if one is not there; what they hold is looked at by wrap_socket()."""
        self._pair = cp_machine.path(certfile), cp_machine.path(keyfile or certfile)
        for path in self._pair:
            with open(path, "rb") as f:
                f.read()

    def wrap_socket(self, sock: Any, *, server_side: bool = False, server_hostname: str | None = None) -> SSLSocket:
        assert sock.type == 1 and not server_side
        for name in "accept bind close connect listen recv_into send settimeout setsockopt".split():
            getattr(sock, name)
        real = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        real.maximum_version = ssl.TLSVersion.TLSv1_2  # boards have no 1.3
        real.check_hostname = self.check_hostname
        try:
            if self._roots is None:
                real.set_default_verify_paths()
            elif self._roots:
                real.load_verify_locations(cadata=self._roots)
            else:
                real.check_hostname, real.verify_mode = False, ssl.CERT_NONE
        except (ssl.SSLError, ValueError):
            raise OSError(BAD_CERTIFICATE, "X509 - The CRT/CRL/CSR format is invalid") from None
        try:
            if self._pair:
                real.load_cert_chain(*self._pair)
        except ssl.SSLError:
            raise OSError(BAD_KEY, "PK - Invalid key tag or value") from None
        return SSLSocket(real, sock, server_hostname)


class SSLSocket:
    def __init__(self, context: ssl.SSLContext, sock: Any, name: str | None) -> None:
        self._sock = sock
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=name)

    def connect(self, address: Any) -> None:
        self._sock.connect(address)
        self._run(self._tls.do_handshake)

    def recv_into(self, buf: Any, size: int = 0) -> int:
        return int(self._run(self._tls.read, size or len(buf), buf) or 0)

    def send(self, data: Any) -> int:
        return int(self._run(self._tls.write, data))

    def close(self) -> None:
        self._sock.close()

    def _send(self) -> None:
        data = memoryview(self._out.read())
        while data:
            data = data[self._sock.send(data) :]

    def _run(self, step: Any, *args: Any) -> Any:
        buf = bytearray(4096)
        while True:
            try:
                result = step(*args)
                self._send()
                return result
            except ssl.SSLWantReadError:
                self._send()
                size = self._sock.recv_into(memoryview(buf))
                if size:
                    self._in.write(memoryview(buf)[:size])
                else:
                    self._in.write_eof()
            except ssl.SSLCertVerificationError as e:
                self._send()
                words = _VERIFY.get(e.verify_code, _UNTRUSTED)
                raise OSError(UNVERIFIED, f"X509 - Certificate verification failed; {words}") from None
            except ssl.SSLZeroReturnError:
                return 0
            except ssl.SSLEOFError:
                raise OSError(CLOSED, "SSL - The connection indicated an EOF") from None
            except ssl.SSLError as e:
                self._send()
                code = FATAL_ALERT if "ALERT" in (e.reason or "") else ILLEGAL
                raise OSError(code, f"SSL - {e.reason}") from None


def create_default_context() -> SSLContext:
    context = SSLContext()
    context.check_hostname = True
    return context
