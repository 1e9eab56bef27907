# A TLS stream that umqtt.simple can be trusted with: a deadline under every read and write, the handshake's
# included; one write for each flight; never a short read. It always verifies, and nothing can turn that off.
import errno
import gc

import tls
from micropython import const

from .clock import due, left
from .errors import AzureError
from .runtime import IOBase, hand, poll, time

_SLICE = const(200)  # ms between two calls of idle()
_GATHER = const(4096)  # bytes kept back for one write; the TLS send buffer of an ESP32 holds as many
_IN = const(1)  # select.POLLIN and POLLOUT, the same on every system
_OUT = const(4)
_LARGEST = const(16384)  # bytes; an answer of DPS with a certificate chain has about 5,000


def idle():
    """Called at least five times a second in every wait. Replace it (stream.idle = f) to feed a watchdog."""


def pause(seconds):
    """Sleep without starving the watchdog."""
    end = due(seconds * 1000)
    while left(end) > 0:
        idle()
        time.sleep_ms(max(0, min(left(end), _SLICE)))


class _Link(IOBase):
    # The bare socket, as mbedTLS sees it. Errors go back as negative numbers: an exception through mbedTLS
    # would leave its memory behind.
    def __init__(self, sock):
        sock.setblocking(False)
        self.sock = sock
        self.poll = poll()
        self.fed = due(0)  # when idle() is to be called next

    def until(self, ms, late=errno.ETIMEDOUT):
        self.end = due(ms)
        self.late = late
        self.once = True  # what is there already is taken, however late it is

    def readinto(self, buf):
        return self._wait(self.sock.readinto, buf, _IN)

    def write(self, buf):
        return self._wait(self.sock.write, buf, _OUT)

    def _wait(self, function, buf, event):
        # A peer that never stops sending must not hold off a deadline or starve the watchdog.
        try:
            while True:
                ms = left(self.end)
                if ms > 0 or self.once:
                    self.once = False
                    done = function(buf)
                    if left(self.fed) <= 0:
                        self.fed = due(_SLICE)
                        idle()
                    if done is not None:
                        return done
                if ms <= 0:
                    return -self.late
                self.poll.register(self.sock, event)
                self.poll.poll(min(ms, _SLICE))
        except OSError as e:
            return -(e.args[0] or errno.EIO)

    def ioctl(self, *_):
        return 0  # whoever closes the stream closes the socket


class Stream:
    """What umqtt.simple takes as ssl= and gets back from it as its socket.

    step names what is being done when an error is raised; roots, certificate and key are paths (PEM; key also DER);
    size: how many bytes of the certificate's file, 0 for all; timeout: seconds for the handshake, and for anything that
    has begun.
    """

    def __init__(self, step, timeout, roots, certificate="", key="", size=0):
        idle()  # what comes next feeds nothing: resolving a name, and the bare connection
        self.step = step
        self.timeout = timeout * 1000
        self.files = roots, certificate, key, size
        self.out = bytearray()
        self.held = None  # a list that gets the PUBACK, if one is written next, until somebody writes it again
        self.link = self.tls = None
        self.packets = None  # that it is read by, if a message may be too large for the heap

    def wrap_socket(self, sock, server_hostname):
        gc.collect()  # first, too: what TLS needs for long shall not lie above what is gone soon
        self.link = _Link(sock)
        self.link.until(self.timeout)
        roots, certificate, key, size = self.files
        context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        context.verify_mode = tls.CERT_REQUIRED
        _use(context.load_verify_locations, roots)
        if certificate:
            _use(context.load_cert_chain, certificate, size, key)
        gc.collect()
        self.tls = context.wrap_socket(self.link, server_hostname=server_hostname)
        self.begin()
        return self

    def begin(self):
        """Something new begins: all of it, with the answer, has to be done by the timeout."""
        self.link.until(self.timeout)

    def listen(self, ms):
        """Until a first byte comes, for ms at most, read() may return None. What was written goes out first."""
        self.write(b"")  # AzureError if it is closed
        if self.packets:
            self.packets.drop()
        if self.out:
            self.begin()
            self.flush()
        self.link.until(ms, errno.EAGAIN)

    def setblocking(self, _):
        pass  # umqtt.simple calls this; read() sees to the deadlines

    def read(self, size):
        self.flush()
        if self.packets:
            return self.packets.read(size)
        if size > _LARGEST:
            raise AzureError("too-big", self.step)
        return self.take(size)

    def take(self, size):
        """As many bytes, or None if there is none yet."""
        data = self.tls.read(size)
        if data is None:
            return None
        if len(data) < size:
            raise AzureError("closed", self.step)
        self.heard = due(0)
        if self.link.late == errno.EAGAIN:
            self.begin()  # something has begun, and has to come to its end
        return data

    def write(self, data, size=None):
        if not self.tls:
            raise AzureError("closed", self.step)
        held, self.held = self.held, None
        if held and data[:2] == b"@\x02":
            held.append(bytes(data))
            return
        self.out.extend(data if size is None else data[:size])
        if len(self.out) > _GATHER:
            self.flush()
            self.begin()  # the peer takes what we send: that is progress of ours

    def flush(self):
        if self.out:
            if self.out[0] == 0x10 and self.files[1]:
                self.out = _without_password(self.out)
            self.tls.write(self.out)
            self.out = bytearray()

    def close(self):
        if self.tls:
            self.tls.close()
            self.tls = None
        if self.link:
            self.link.sock.close()


def _without_password(connect):
    # umqtt.simple cannot send a user name without a password, only with an empty one; whom a certificate speaks for
    # sends none (MQTT 3.1.1, 3.1.2.9). So the last two bytes go, the flag, and two of the remaining length.
    start = 3 if connect[1] > 127 else 2
    connect[start + 7] &= 0xBF
    size = len(connect) - start - 2
    return bytes([0x10, size] if size < 128 else [0x10, size & 127 | 128, size >> 7]) + connect[start:-2]


def _use(load, path, size=0, *others):
    try:
        hand(load, path, size, *others)
    except (OSError, ValueError) as e:
        raise AzureError("config", "identity", "%s: %s" % (" ".join((path,) + others), e))
