# What comes from the cloud: messages, methods and the device twin. Loaded when an application asks for any of them.
# What arrives is only put down while a packet is read; the handlers run from poll(), so they may send and ask as well.
import json

from micropython import const

from .clock import due, left
from .errors import AzureError

_MOST = const(16)  # that may wait; the others the Hub says again on the next connection


class Cloud:
    """What one Session's application wants to hear; it outlives the connection."""

    message = desired = None  # handlers
    version = None  # of the desired properties that the application knows; None: it shall hear of all
    rid = ""  # of the last question
    busy = False
    stale = False  # desired properties may have changed unheard

    def __init__(self, session):
        self.session = session
        self.filters = []  # of topics; "+" stands for the device id
        self.methods = {}
        self.queue = []
        self.document = {}  # those properties

    def resume(self):
        # A new connection. What was not handled on the one before comes again, or nobody waits for it any more.
        self.queue = []
        self.stale = self.desired
        for name in self.filters:
            self._subscribe(name)

    def want(self, name):
        if name not in self.filters:
            self.filters.append(name)
            self._subscribe(name)

    def _subscribe(self, name):
        self.session.mqtt.subscribe(name.replace("+", self.session.record.device_id), 1)

    def hear(self, topic, body):
        # From within MQTT.
        if topic.startswith(b"$iothub/twin/res/"):
            _, _, _, status, query = str(topic, "utf-8").split("/")
            pairs = query[1:].split("&")
            if self.rid in pairs:
                pairs.remove(self.rid)
                self.answer = int(status), pairs, body
            return
        item = [topic, body]
        if topic.startswith(b"devices/"):
            self.session.stream.held = item
        room = _MOST - len(self.queue)
        if room >= 0:
            self.queue.append(room and item)  # the last is a mark

    def work(self):
        """Let the handlers have what has arrived, in its order."""
        if self.busy:  # a handler polls
            return
        self.busy = True
        try:
            while self.queue or self.stale:
                if self.stale:
                    self.refresh()
                    continue
                item = self.queue.pop(0)
                if not item:  # more was said than was put down
                    self.session.device.connect()
                    continue
                topic, body, *ack = item
                stream = self.session.stream
                if topic.startswith(b"$iothub/methods/"):
                    self._method(topic, body)
                elif topic.startswith(b"$iothub/"):
                    self._patch(body)
                elif self._call(self.message, body, _properties(topic)) and stream is self.session.stream:
                    for puback in ack:
                        stream.write(puback)
        finally:
            self.busy = False

    def _call(self, handler, *args):
        # [its result], or None if it failed, which must not end the session.
        try:
            return [handler(*args)]
        except (AzureError, MemoryError):
            raise
        except Exception as e:  # noqa: BLE001 the application's
            self.session.device.identity.log("error", "app %s %s" % (type(e).__name__, e))

    def _method(self, topic, body):
        # $iothub/methods/POST/{name}/?$rid={rid}
        name, _, rid = str(topic[21:], "utf-8").rpartition("/?$rid=")
        handler = self.methods.get(_unquote(name.encode()))
        status = 404
        result = None
        if handler:
            done = self._call(_result, handler, body)
            status, result = done[0] if done else (500, None)
        self.session.mqtt.publish("$iothub/methods/res/%d/?$rid=%s" % (status, rid), result or "null")

    def ask(self, what, body):
        """A question to the twin -> its version, and the answer as bytes."""
        session = self.session
        self.want("$iothub/twin/res/#")
        session.stream.step = "hub.twin"
        self.rid = "$rid=%d" % due(0)
        self.answer = None
        session.mqtt.publish("$iothub/twin/%s/?%s" % (what, self.rid), body)
        end = due(session.device.identity.timeout * 1000)
        while not self.answer:
            if left(end) <= 0:
                raise AzureError("timeout", "hub.twin")
            session.mqtt.wait(max(1, left(end)))
        status, pairs, body = self.answer
        if status > 299:
            from .faults import refusal

            raise refusal("hub.twin", status, _json(body))
        return int(pairs[0][9:]) if pairs else 0, body  # $version=

    def twin(self):
        twin = _json(self.ask("GET", b"")[1])
        try:
            twin["desired"]["$version"] + 0
            return twin
        except (KeyError, TypeError):
            raise AzureError("protocol", "hub.twin")

    def refresh(self):
        # What has changed since the application last heard of it, by comparison: also what was deleted.
        document = self.twin()["desired"]
        self.stale = False
        version = document.pop("$version")
        first = self.version is None
        patch = _difference(self.document, document, first)
        self.document, self.version = document, version
        if patch or first:
            self._call(self.desired, patch, version)

    def _patch(self, body):
        patch = _json(body)
        version = patch.pop("$version", 0) if isinstance(patch, dict) else 0
        if self.stale or version != self.version + 1:
            self.stale = self.stale or version > self.version  # one is missing; an older one is no news
        else:
            _merge(self.document, patch)
            self.version = version
            self._call(self.desired, patch, version)


def _result(handler, body):
    status, result = handler(json.loads(body) if body else None)
    return int(status), json.dumps(result)


def _json(body):
    try:
        return json.loads(body)
    except ValueError:
        return None


def _merge(document, patch):
    for name, value in patch.items():
        if value is None:
            document.pop(name, None)
        elif isinstance(value, dict) and isinstance(document.get(name), dict):
            _merge(document[name], value)
        else:
            document[name] = value


def _difference(old, new, whole):
    # The patch that makes new of old, or of whatever there is.
    patch = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            value = _difference(before, value, whole)
            if value or whole:
                patch[name] = value
        elif whole or value != before:
            patch[name] = value
    return patch


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
