# Stand-in for the frozen `umqtt.simple`: the same interface on MQTT 3.1.1 (OASIS), and the same habits.
# Its faults are kept on purpose, each named where it stands: the firmware has to live with them on a board. Releases
# differ (README.md of this folder): 1.4 in MicroPython 1.24, 1.6 in 1.25 and 1.26, 1.7 in 1.27 and 1.28, 1.8 in 1.29.
import socket
from struct import pack, pack_into

from _release import minor


class MQTTException(Exception):
    pass


def _length(packet, value):
    # Remaining length (section 2.2.3) from byte 1 on; returns how many bytes of the packet are in use.
    used = 1
    while value > 0x7F:
        packet[used] = value & 0x7F | 0x80
        value >>= 7
        used += 1
    packet[used] = value
    return used + 1


class MQTTClient:
    def __init__(
        self,
        client_id,
        server,
        port=0,
        user=None,
        password=None,
        keepalive=0,
        ssl=None,
        **others,
    ):
        if minor >= 25:
            self.ssl_params = others.pop("ssl_params", {})
        if others:
            raise TypeError("extra keyword arguments given")
        self.client_id = client_id
        self.sock = None
        self.server = server
        self.port = port or (8883 if ssl else 1883)
        self.ssl = ssl
        self.pid = 0
        self.cb = None
        self.user = user
        self.pswd = password
        self.keepalive = keepalive
        self.lw_topic = None
        self.lw_msg = None
        self.lw_qos = 0
        self.lw_retain = False

    def set_callback(self, f):
        self.cb = f

    def set_last_will(self, topic, msg, retain=False, qos=0):
        assert 0 <= qos <= 2
        assert topic
        self.lw_topic = topic
        self.lw_msg = msg
        self.lw_qos = qos
        self.lw_retain = retain

    # Fault: each field is a write of its own, so a packet is five or more TLS records.
    def _send_str(self, s):
        self.sock.write(pack("!H", len(s)))
        self.sock.write(s)

    # Fault: an empty read ends in IndexError, a fifth length byte is taken.
    def _recv_len(self):
        value = shift = 0
        while True:
            byte = self.sock.read(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    if minor >= 25:

        def connect(self, clean_session=True, timeout=None):
            # Fault: the timeout holds for the bare socket only; before 1.8 an old socket is not closed.
            if minor >= 29 and self.sock:
                self.sock.close()
            self.sock = socket.socket()
            self.sock.settimeout(timeout)
            return self._connect(clean_session)

    else:

        def connect(self, clean_session=True):
            # Fault: without a deadline.
            self.sock = socket.socket()
            return self._connect(clean_session)

    def _connect(self, clean_session):
        self.sock.connect(socket.getaddrinfo(self.server, self.port)[0][-1])
        if self.ssl is True and minor >= 25:
            import ssl

            self.sock = ssl.wrap_socket(self.sock, **self.ssl_params)
        elif self.ssl:
            self.sock = self.ssl.wrap_socket(self.sock, server_hostname=self.server)

        # Section 3.1: protocol name and level, flags, keepalive; then the payload's strings in their order.
        header = bytearray(b"\x04MQTT\x04\x00\0\0")
        size = 10 + 2 + len(self.client_id)
        header[6] = clean_session << 1
        if self.user:
            # Fault: a user without a password (None) is a TypeError; the password flag is always set.
            size += 2 + len(self.user) + 2 + len(self.pswd)
            header[6] |= 0xC0
        if self.keepalive:
            assert self.keepalive < 65536
            pack_into("!H", header, 7, self.keepalive)
        if self.lw_topic:
            size += 2 + len(self.lw_topic) + 2 + len(self.lw_msg)
            header[6] |= 0x04 | self.lw_qos << 3 | self.lw_retain << 5
        # The protocol name's length is a 16-bit number: its high byte belongs to the first write.
        packet = bytearray(b"\x10\0\0\0\0\0")
        self.sock.write(packet, _length(packet, size) + 1)
        self.sock.write(header)
        self._send_str(self.client_id)
        if self.lw_topic:
            self._send_str(self.lw_topic)
            self._send_str(self.lw_msg)
        if self.user:
            self._send_str(self.user)
            self._send_str(self.pswd)
        answer = self.sock.read(4)
        assert answer[0] == 0x20 and answer[1] == 2
        if answer[3]:
            raise MQTTException(answer[3])
        return answer[2] & 1

    def disconnect(self):
        self.sock.write(b"\xe0\0")
        self.sock.close()

    def ping(self):
        self.sock.write(b"\xc0\0")

    def publish(self, topic, msg, retain=False, qos=0):
        packet = bytearray(b"\x30\0\0\0\0")
        packet[0] |= qos << 1 | retain
        size = 2 + len(topic) + len(msg) + (2 if qos else 0)
        assert size < 2097152
        self.sock.write(packet, _length(packet, size))
        self._send_str(topic)
        if qos:
            # Fault: the identifier never wraps; past 65,535 no acknowledgement fits any more.
            self.pid += 1
            pid = self.pid
            pack_into("!H", packet, 0, pid)
            self.sock.write(packet, 2)
        self.sock.write(msg)
        if qos == 1:
            # Fault: no deadline.
            while True:
                if self.wait_msg() == 0x40:
                    assert self.sock.read(1) == b"\x02"
                    acknowledged = self.sock.read(2)
                    if pid == acknowledged[0] << 8 | acknowledged[1]:
                        return
        elif qos == 2:
            assert 0

    def subscribe(self, topic, qos=0):
        assert self.cb is not None, "Subscribe callback is not set"
        self._filter(0x82, topic, bytes((qos,)))

    if minor >= 27:

        def unsubscribe(self, topic):
            self._filter(0xA2, topic)

    def _filter(self, kind, topic, qos=b""):
        # SUBSCRIBE and UNSUBSCRIBE (sections 3.8 and 3.10) until they are acknowledged.
        self.pid += 1
        pid = self.pid
        packet = bytearray(4)
        packet[0] = kind
        size = 2 + 2 + len(topic) + len(qos)
        if minor >= 29:
            self.sock.write(packet, _length(packet, size))
            pack_into("!H", packet, 0, pid)
            self.sock.write(packet, 2)
        else:
            # Fault: one byte of remaining length, wrong for a topic of 123 bytes or more.
            pack_into("!BH", packet, 1, size, pid)
            self.sock.write(packet)
        self._send_str(topic)
        if qos:
            self.sock.write(qos)
        # Fault: no deadline.
        while True:
            if self.wait_msg() == kind + 0x0E:
                answer = self.sock.read(4 if qos else 3)
                assert answer[1] << 8 | answer[2] == pid
                if qos and answer[3] == 0x80:
                    raise MQTTException(answer[3])
                return

    def wait_msg(self):
        first = self.sock.read(1)
        # Fault: whatever deadline the socket had is gone from here on.
        self.sock.setblocking(True)
        if first is None:
            return None
        if first == b"":
            raise OSError(-1)
        if first == b"\xd0":
            assert self.sock.read(1)[0] == 0
            return None
        op = first[0]
        if op & 0xF0 != 0x30:
            return op
        size = self._recv_len()
        length = self.sock.read(2)
        length = length[0] << 8 | length[1]
        topic = self.sock.read(length)
        size -= length + 2
        if op & 6:
            pid = self.sock.read(2)
            pid = pid[0] << 8 | pid[1]
            size -= 2
        msg = self.sock.read(size)
        self.cb(topic, msg)
        if op & 6 == 2:
            self.sock.write(pack("!BBH", 0x40, 2, pid))
        elif op & 6 == 4:
            assert 0
        return op

    def check_msg(self):
        self.sock.setblocking(False)
        return self.wait_msg()
