# What comes from the cloud: messages and methods; twin.py has the device twin. Loaded when an application asks for it.
# What arrives is only put down while a packet is read; the handlers run from poll(), so they may send and ask as well.
# What is malformed, or does not fit into the heap, is dropped and logged: it must not cost the connection.
import json

from micropython import const

from . import forget
from .errors import AzureError
from .hub import dumps

# What may wait for a handler: so many, and so many bytes of more than one. The Hub says the others again.
_MOST = const(16)
_BYTES = const(4096)
_RESULT = const(131072)  # bytes of a method's answer (IoT Hub's documentation on direct methods)


class Cloud:
    """What one Session's application wants to hear; it outlives the connection."""

    message = None  # the handler
    twin = None  # the Twin, if the application wants that
    busy = False
    missed = False  # messages came that nobody wanted, more than are kept

    def __init__(self, session):
        self.session = session
        self.filters = []  # of topics; "+" stands for the device id
        self.methods = {}
        self.queue = []
        self.early = []  # messages, until there is a handler for them

    def resume(self):
        # A new connection. What was not handled on the one before comes again, or nobody waits for it any more.
        self.queue = []
        self.early = []
        self.missed = False
        if self.twin:
            self.twin.stale = self.twin.desired
        wanted, self.filters = self.filters, []
        for name in wanted:
            self.want(name)

    def on_message(self, handler):
        self.message = handler
        self.want("devices/+/messages/devicebound/#")
        self.queue = self.early + self.queue + [None] * self.missed
        self.early = []
        self.missed = False

    def want(self, name):
        # Subscribe, unless the Hub has it from the session before. A note on flash says what that has.
        if name in self.filters:
            return
        from . import subscribed

        session = self.session
        if not self.filters:
            self.note = subscribed.read(session) if session.mqtt.present else []
            if not self.note:
                subscribed.write(session, [])  # first: a power cut must not leave an old note that is no longer true
        self.filters.append(name)
        if name not in self.note:
            session.mqtt.subscribe(name.replace("+", session.record.device_id), 1)
            self.note.append(name)
            subscribed.write(session, self.note)
        subscribed = None
        forget("subscribed")

    def hear(self, topic, body):
        # From within MQTT; a body of None was too large to be read.
        if topic.startswith(b"$iothub/twin/res/"):
            if self.twin and not self.twin.hear(topic, body):
                self._dropped(topic)
            return
        item = [topic, body]
        if topic.startswith(b"devices/"):
            self.session.stream.held = item
        waiting = self.early + self.queue
        size = sum([len(one[1] or b"") for one in waiting if one])
        if len(waiting) < _MOST and not (waiting and size + len(body or b"") > _BYTES):
            self.queue.append(item)
        elif not waiting or waiting[-1]:
            self.queue.append(None)  # a mark

    def work(self):
        """Let the handlers have what has arrived, in its order."""
        if self.busy:  # a handler polls
            return
        self.busy = True
        try:
            while True:
                if self.twin and self.twin.stale:
                    self.twin.refresh()
                if not self.queue:
                    return
                item = self.queue.pop(0)
                if not item:  # more was said than was put down
                    if self.message:
                        self.session.device.connect()
                    else:
                        self.missed = True
                    continue
                try:
                    self._handle(item)
                except (ValueError, TypeError, IndexError, KeyError, AttributeError):
                    self._dropped(item[0])
        finally:
            self.busy = False

    def _handle(self, item):
        topic, body, *ack = item
        stream = self.session.stream
        if topic.startswith(b"$iothub/methods/POST/"):
            self._method(topic, body)
        elif topic.startswith(b"$iothub/twin/PATCH/properties/desired/"):
            if self.twin:
                self.twin.patch(body)
        elif not topic.startswith(b"devices/"):
            self._dropped(topic)
        elif not self.message:
            self.early.append(item)
        # A message that does not fit stays with the Hub, which gives it up in the end: nobody has had it.
        elif body is not None and self.call(self.message, body, _properties(topic)) and stream is self.session.stream:
            for puback in ack:
                stream.write(puback)

    def _dropped(self, topic):
        self.session.device.identity.log("dropped", repr(bytes(topic[:80])))

    def call(self, handler, *args):
        # [its result], or None if it failed, which must not end the session.
        try:
            return [handler(*args)]
        except AzureError:
            raise
        except Exception as e:  # noqa: BLE001 the application's, or no room for what came
            self.session.device.identity.log("error", "app %s %s" % (type(e).__name__, e))

    def _method(self, topic, body):
        # $iothub/methods/POST/{name}/?$rid={rid}
        name, query, rid = str(topic[21:], "utf-8").rpartition("/?$rid=")
        if not query:
            return self._dropped(topic)
        handler = self.methods.get(_unquote(name.encode()).lower())
        status = 404
        result = None
        if handler:
            status = 413
            try:
                if body is not None:
                    payload = loads(body) if body else None
                    status = 0
            except ValueError:
                status = 400
            except MemoryError:
                self.session._skip(len(body))
            if not status:
                done = self.call(_result, handler, payload)
                status, result = done[0] if done else (500, None)
        self.session.mqtt.publish("$iothub/methods/res/%d/?$rid=%s" % (status, rid), result or "null")

def _result(handler, payload):
    status, result = handler(payload)
    try:
        result = dumps(result)
    except AzureError as e:
        raise ValueError(e)
    if not 0 <= int(status) < 1 << 31 or len(result) > _RESULT:
        raise ValueError("status %s, %d bytes" % (status, len(result)))
    return int(status), result


def loads(body):
    """json.loads() of bytes; two escapes that are one character are one (RFC 8259, 7), as MicroPython does not do."""
    if b"\\u" in body:
        from .escapes import joined

        body = joined(body)
    return json.loads(body)


def _properties(topic):
    # devices/{id}/messages/devicebound/{name=value&...}, each URL-encoded
    bag = {}
    for pair in topic.split(b"/", 4)[4].split(b"&"):
        name, equals, value = pair.partition(b"=")
        if name:
            bag[_unquote(name)] = _unquote(value) if equals else None
    return bag


def _unquote(text):
    try:
        first, *rest = text.split(b"%")
        return str(first + b"".join([bytes([int(part[:2], 16)]) + part[2:] for part in rest]), "utf-8")
    except ValueError:
        return str(text, "utf-8")
