# What a hub sends, packet by packet: a message that the heap has no room for must not end the connection. DPS sends
# nothing of that kind, and its answer needs the heap for itself.
import gc

from micropython import const

from .clock import due
from .errors import AzureError
from .runtime import COPIES

_LARGEST = const(400000)  # bytes: a message of IoT Hub has 256 KB, and a topic
_PIECE = const(256)  # bytes that are read at once of a message that is skipped


class Packets:
    """What a Stream reads. A message that does not fit into the heap comes without its body, and skipped says how large
    that was. Its bytes are read away, in pieces, before the next packet.
    """

    head = b""  # of the packet that is being read: its type and length, as far as nobody has taken them
    left = 0  # bytes of it that are still to come
    unwanted = 0  # bytes before the next packet that are read away
    skipped = 0

    def __init__(self, stream):
        self.stream = stream

    def drop(self):
        """What is left of a packet is of no use: umqtt.simple does not read an acknowledgement that comes too late."""
        self.head = b""
        self.unwanted += self.left
        self.left = 0

    def read(self, size):
        if not size:  # of a message without a body
            return b""
        if not (self.head or self.left or self._begin()):
            return None
        head = self.head[:size]
        self.head = self.head[size:]
        size -= len(head)
        if not size:
            return head
        if size > self.left:
            raise self._wrong()
        self.left -= size
        data = self.stream.take(size)
        return head + data if head else data

    def _begin(self):
        # The type of a packet and its length (MQTT 3.1.1, 2.2) into head -> whether there is one.
        stream = self.stream
        while self.unwanted:
            data = stream.tls.read(min(self.unwanted, _PIECE))
            if data is None:
                return False
            if not data:
                raise AzureError("closed", stream.step)
            self.unwanted -= len(data)
            stream.heard = due(0)
        head = stream.take(1)
        if head is None:
            return False
        size = shift = 0
        while not shift or head[-1] > 127 and shift < 28:
            head += stream.take(1)
            size |= (head[-1] & 127) << shift
            shift += 7
        if head[-1] > 127 or size > _LARGEST:
            raise self._wrong()
        self.head = head
        self.left = size
        if size > _PIECE:
            try:
                _room(size * COPIES)
            except MemoryError:
                self._shorten(head[0])
            gc.collect()  # the message is to lie where that has lain
        return True

    def _shorten(self, first):
        # A message without its body, in the form of a whole packet (MQTT 3.1.1, 3.3). The body is read away later.
        take = self.stream.take
        packet = take(2)
        topic = packet[0] << 8 | packet[1]
        size = self.left - topic - (4 if first & 6 else 2)
        if size < 0:
            raise self._wrong()
        if topic > _PIECE * 4:  # no room for that either
            packet = b"\0\0"
        while topic:
            data = take(min(topic, _PIECE))
            topic -= len(data)
            if packet[1] or packet[0]:
                packet += data
        if first & 6:
            packet += take(2)
        self.head = bytes([first, len(packet) & 127 | 128, len(packet) >> 7]) + packet
        self.left = 0
        self.unwanted = self.skipped = size

    def _wrong(self):
        return AzureError("protocol", self.stream.step)


def _room(size):
    bytearray(size)  # MemoryError if there is no such piece
