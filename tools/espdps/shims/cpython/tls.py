"""MicroPython's `tls` on CPython: certificates and keys as bytes, any stream object beneath, mbedTLS's words.

It must never verify less than it was told to; like the original it starts at CERT_NONE."""

import errno
import os
import ssl
import tempfile
from typing import Any

PROTOCOL_TLS_CLIENT = 0
CERT_NONE = 0
CERT_OPTIONAL = 1
CERT_REQUIRED = 2

_CONN_EOF = -0x7280
_FATAL_ALERT = -0x7780
_PROTOCOL = -0x6600  # illegal parameter: stands for every other fault of the handshake
_UNTRUSTED = "The certificate is not correctly signed by the trusted CA"
# OpenSSL's verify codes (X509_V_ERR_*) in mbedTLS's words
_VERIFY = {
    9: "The certificate validity starts in the future",
    10: "The certificate validity has expired",
    62: "The certificate Common Name (CN) does not match with the expected CN",
}


class SSLContext:
    def __init__(self, protocol: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.maximum_version = ssl.TLSVersion.TLSv1_2  # boards have no 1.3
        self.verify_mode = CERT_NONE

    def load_verify_locations(self, cadata: bytes) -> None:
        try:
            self._context.load_verify_locations(cadata=cadata.decode() if cadata.startswith(b"-") else cadata)
        except (ssl.SSLError, UnicodeDecodeError):
            raise ValueError("invalid cert") from None

    def load_cert_chain(self, cert: bytes, key: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:  # 0700
            paths = []
            for name, data in (("cert", cert), ("key", key)):
                if not data.lstrip().startswith(b"-") and b"-----BEGIN" not in data:
                    kind = "CERTIFICATE" if name == "cert" else "PRIVATE KEY"
                    data = ssl.DER_cert_to_PEM_cert(data).replace("CERTIFICATE", kind).encode()
                paths.append(os.path.join(folder, name))
                with open(paths[-1], "wb") as f:
                    f.write(data)
            try:
                self._context.load_cert_chain(*paths)
            except ssl.SSLError:
                raise ValueError("invalid key") from None

    def wrap_socket(self, stream: Any, server_hostname: str | None = None) -> "SSLSocket":
        self._context.check_hostname = self.verify_mode == CERT_REQUIRED
        self._context.verify_mode = ssl.CERT_REQUIRED if self.verify_mode == CERT_REQUIRED else ssl.CERT_NONE
        if self._context.check_hostname and not server_hostname:
            raise ValueError("CERT_REQUIRED requires server_hostname")
        return SSLSocket(self._context, stream, server_hostname)


class SSLSocket:
    def __init__(self, context: ssl.SSLContext, stream: Any, server_hostname: str | None) -> None:
        self._stream = stream
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=server_hostname)
        self._run(self._tls.do_handshake)

    def _send(self) -> None:
        data = memoryview(self._out.read())
        while data:
            sent = self._stream.write(data)
            if sent < 0:
                raise OSError(-sent, os.strerror(-sent))
            data = data[sent:]

    def _run(self, step: Any, *args: Any) -> Any:
        buf = bytearray(4096)
        while True:
            try:
                result = step(*args)
                self._send()
                return result
            except ssl.SSLWantReadError:
                self._send()
                size = self._stream.readinto(buf)
                if size < 0:
                    raise OSError(-size, os.strerror(-size)) from None
                if size:
                    self._in.write(memoryview(buf)[:size])
                else:
                    self._in.write_eof()
            except ssl.SSLCertVerificationError as e:
                self._send()
                raise ValueError(_VERIFY.get(e.verify_code, _UNTRUSTED)) from None
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLEOFError:
                raise OSError(_CONN_EOF, "SSL - connection ended") from None
            except ssl.SSLError as e:
                self._send()
                code = _FATAL_ALERT if "ALERT" in (e.reason or "") else _PROTOCOL
                raise OSError(code, "SSL - " + (e.reason or "")) from None

    def read(self, size: int) -> bytes | None:
        data = b""
        while len(data) < size:
            try:
                more = self._run(self._tls.read, size - len(data))
            except OSError as e:
                if e.errno != errno.EAGAIN:
                    raise
                return data or None
            if not more:
                break
            data += more
        return data

    def write(self, data: Any) -> int:
        view = memoryview(data)
        while view:
            view = view[self._run(self._tls.write, view) :]
        return len(data)

    def close(self) -> None:
        self._stream.ioctl(4, 0)
