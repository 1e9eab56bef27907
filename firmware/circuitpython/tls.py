# MicroPython's tls on CircuitPython's ssl, for aziot/stream.py; files come as paths. ssl takes any object with a
# socket's methods (from CircuitPython 9.2 on), so the deadlines of the stream's link hold beneath it, and in the
# handshake too. It always verifies: there is no mode for anything else.
import errno
import ssl

from aziot.errors import AzureError
from socketpool import SocketPool

PROTOCOL_TLS_CLIENT = 0
CERT_REQUIRED = 2

_UNVERIFIED = -9984  # MBEDTLS_ERR_X509_CERT_VERIFY_FAILED; the text says why
_NO_ROOM = -10368, -4480, -16256, 106  # mbedTLS has no memory for X.509, PEM, a key, ASN.1


class SSLContext:
    verify_mode = CERT_REQUIRED

    def __init__(self, _protocol):
        self.real = ssl.create_default_context()
        self.real.check_hostname = True
        self.paths = ()

    def load_verify_locations(self, path):
        with open(path) as f:
            text = f.read()
        if "-----BEGIN CERTIFICATE-----" not in text:
            raise ValueError("invalid cert")  # with an empty text ssl would verify nothing at all
        # In the place of the certificates that CircuitPython brings along
        self.real.load_verify_locations(cadata=text)
        self.paths += (path,)

    def load_cert_chain(self, certificate, key):
        self.real.load_cert_chain(certificate, key)
        self.paths += (certificate, key)

    def wrap_socket(self, link, server_hostname):
        if self.verify_mode != CERT_REQUIRED or not self.paths:
            raise ValueError("verify_mode")
        try:
            # Only here ssl looks at what is in those files.
            real = self.real.wrap_socket(_Beneath(link), server_hostname=server_hostname)
        except (OSError, ValueError) as e:
            if e.args[0] in _NO_ROOM:
                raise OSError(errno.ENOMEM, str(e))
            raise AzureError("config", "identity", "%s: %s" % (" ".join(self.paths), e))
        return _Socket(real)


class _Beneath:
    # The link as ssl wants a socket to be. What it says with a negative number, an exception says here.
    type = SocketPool.SOCK_STREAM

    def __init__(self, link):
        self.link = link

    def recv_into(self, buf):
        return _number(self.link.readinto(buf))

    def send(self, buf):
        return _number(self.link.write(buf))

    def close(self):
        self.link.ioctl(4, 0)

    def nothing(self, *_):
        pass  # it is connected, and has its deadlines from the stream

    accept = bind = connect = listen = settimeout = setsockopt = nothing


def _number(done):
    if done < 0:
        raise OSError(-done, "")
    return done


class _Socket:
    # MicroPython's SSLSocket, as far as aziot/stream.py uses it: never short but at the end, None if nothing is there.
    def __init__(self, real):
        self.real = real
        try:
            real.connect(None)  # the handshake
        except OSError as e:
            if e.args[0] == _UNVERIFIED:
                raise ValueError(e.args[1] if len(e.args) > 1 else "")
            raise

    def read(self, size):
        data = bytearray(size)
        view = memoryview(data)
        while view:
            try:
                done = self.real.recv_into(view)
            except OSError as e:
                if e.args[0] != errno.EAGAIN:
                    raise
                done = None
            if done is None and len(view) == size:
                return None
            if not done:
                return data[: size - len(view)]
            view = view[done:]
        return data

    def write(self, data):
        view = memoryview(data)
        while view:
            view = view[self.real.send(view) :]

    def close(self):
        self.real.close()
