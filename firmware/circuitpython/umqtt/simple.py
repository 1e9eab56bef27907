# umqtt.simple's interface on adafruit_minimqtt, for aziot/mqtt.py: the packets are MiniMQTT's, the connection and its
# deadlines are those of the stream given as ssl=. Nothing here waits by itself.
import errno

from adafruit_connection_manager import connection_manager_close_all
from adafruit_minimqtt.adafruit_minimqtt import MQTT, MMQTTException
from aziot.errors import AzureError
from aziot.runtime import pool
from storage import getmount


class MQTTException(Exception):
    """A refusal: args[0] is the code of CONNACK, or 0x80 of SUBACK."""


class _Through(Exception):
    # Carries an exception past MiniMQTT, which takes some for its own and forgets what they were.
    def __init__(self, error):
        super().__init__()
        self.error = error


class _Socket:
    # CircuitPython's socket with the methods of MicroPython's, as aziot/stream.py calls them.
    def __init__(self, real):
        self.real = real
        self.setblocking = real.setblocking
        self.close = real.close

    def readinto(self, buf):
        return _unless_it_waits(self.real.recv_into, buf)

    def write(self, buf):
        return _unless_it_waits(self.real.send, buf)


def _unless_it_waits(transfer, buf):
    try:
        return transfer(buf)
    except OSError as e:
        if e.args[0] in (errno.EAGAIN, errno.ETIMEDOUT):
            return None
        raise


class _Wire:
    # To MiniMQTT pool, SSL context and socket in one; there is one, since its connection manager never forgets a pool.
    # Each packet is read whole, by its length (MQTT 3.1.1, 2.2.3), so it is known where one ends: a wait is for one.
    SOCK_STREAM = 1

    def open(self, client):
        self.client = client
        self.stream = client.ssl
        self.most = -1  # packets that a wait takes, if they come; below zero: it must have one, and waits
        self.packet = b""
        self.at = 0

    def getaddrinfo(self, host, port, *_):
        return [(0, 0, 0, "", (host, port))]

    def socket(self, *_):
        return self

    def wrap_socket(self, _, server_hostname):
        return self

    def settimeout(self, _):
        pass

    def connect(self, _):
        self.guarded(self.client.open)

    def guarded(self, function, *args):
        try:
            return function(*args)
        except Exception as e:  # noqa: BLE001 it comes out at the other end
            raise _Through(e)

    def recv_into(self, buf, size):
        if not size:  # of a message without a body
            return 0
        if self.at == len(self.packet):
            self.packet = self.guarded(self.receive) or b""
            self.at = 0
            if not self.packet:
                raise OSError(errno.EAGAIN, "")
            self.most -= 1
        end = min(self.at + size, len(self.packet))
        size = end - self.at
        buf[:size] = self.packet[self.at : end]
        self.at = end
        return size

    def receive(self):
        read = self.stream.read
        packet = read(1) if self.most else None
        if packet is None:
            return None
        self.stream.setblocking(True)
        packet = bytearray(packet)
        size = shift = 0
        while not shift or packet[-1] > 127:
            packet.extend(read(1))
            size |= (packet[-1] & 127) << shift
            shift += 7
            if shift > 28:
                raise AssertionError
        if size:
            packet.extend(read(size))
        if packet[0] == 0x20:  # CONNACK: whether the session of before is still there (MQTT 3.1.1, 3.2.2.2)
            self.present = packet[2] & 1
        return packet

    def send(self, data):
        self.guarded(self.stream.write, data)
        return len(data)

    def close(self):
        pass  # whoever has the stream closes it


_wire = _Wire()


class MQTTClient:
    pid = 0  # MiniMQTT has its own, which goes round
    sock = ssl_params = None

    def __init__(self, client_id, server, port, user, password, keepalive, ssl):
        # Only DPS has such user names. What it issues has to be stored: it is not asked where nothing can be.
        if "/registrations/" in user and getmount("/").readonly:
            raise AzureError("store", "dps.connect", "this drive is the PC's: reset without the button")
        self.address = server, port
        self.ssl = ssl
        _wire.open(self)
        # Its own pings are for a keepalive of 0 endless ones; aziot/hub.py has its own before these.
        self.real = MQTT(
            broker=server,
            port=port,
            username=user,
            password=password,
            client_id=client_id,
            is_ssl=True,
            keep_alive=keepalive or 600,
            socket_pool=_wire,
            ssl_context=_wire,
            use_binary_mode=True,
            socket_timeout=0,
            connect_retries=1,
        )

    def set_callback(self, f):
        self.real.on_message = lambda _, topic, body: _wire.guarded(f, topic.encode(), body)

    def set_last_will(self, topic, message, retain, qos):
        self.real.will_set(topic, message, retain, qos)

    def connect(self, clean_session, timeout):
        self.timeout = timeout
        connection_manager_close_all(_wire)  # it still holds the last connection for open
        self._do(self.real.connect, clean_session)
        return _wire.present  # MiniMQTT looks for it in the wrong byte of the CONNACK

    def open(self):
        host, port = self.address
        self.sock = None
        try:
            address = pool.getaddrinfo(host, port, 0, pool.SOCK_STREAM)[0][-1]
        except OSError as e:
            raise OSError(-2, str(e))  # as MicroPython says that there is no such name
        self.sock = sock = pool.socket(pool.AF_INET, pool.SOCK_STREAM)
        sock.settimeout(self.timeout)
        sock.connect(address)
        self.sock = self.ssl.wrap_socket(_Socket(sock), server_hostname=host)

    def subscribe(self, topic, qos):
        self._do(self.real.subscribe, topic if isinstance(topic, str) else topic.decode(), qos)

    def publish(self, topic, message, retain, qos):
        self._do(self.real.publish, topic, bytes(message), retain, qos)

    def ping(self):
        self._do(self.real.ping)

    def wait_msg(self):
        _wire.most = 1
        try:
            self._do(self.real.loop, 0)
        finally:
            _wire.most = -1

    def _do(self, function, *args):
        try:
            function(*args)
        except _Through as e:
            raise e.error
        except KeyError as e:  # a code of CONNACK for which it has no words
            raise MQTTException(e.args[0])
        except MMQTTException as e:
            raise _refusal(e)


def _refusal(e):
    # What MiniMQTT says of an answer, or what it took for the reason of that -> as umqtt.simple says it.
    while e:
        if getattr(e, "code", None):
            return MQTTException(e.code)
        if "SUBACK" in str(e):
            return MQTTException(0x80)
        e = e.__cause__
    return AssertionError()
