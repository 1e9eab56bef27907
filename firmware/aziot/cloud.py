# What comes from the cloud: messages, methods and the device twin. Loaded when an application asks for any of them.
# What arrives is only put down while a packet is read; the handlers run from poll(), so they may send and ask as well.
# What is malformed, or does not fit into the heap, is dropped and logged: it must not cost the connection.
import json

from micropython import const

from .clock import due, left
from .errors import AzureError
from .hub import dumps

# What may wait for a handler: so many, and so many bytes of more than one. The Hub says the others again.
_MOST = const(16)
_BYTES = const(4096)
_RESULT = const(131072)  # bytes of a method's answer (IoT Hub's documentation on direct methods)
_NOTE = "subscribed"  # the file that says what the Hub's session has


class Cloud:
    """What one Session's application wants to hear; it outlives the connection."""

    message = desired = None  # handlers
    version = None  # of the desired properties that the application knows; None: it shall hear of all
    rid = ""  # of the last question
    busy = False
    stale = False  # desired properties may have changed unheard
    missed = False  # messages came that nobody wanted, more than are kept

    def __init__(self, session):
        self.session = session
        self.filters = []  # of topics; "+" stands for the device id
        self.methods = {}
        self.queue = []
        self.early = []  # messages, until there is a handler for them
        self.document = {}  # those properties

    def resume(self):
        # A new connection. What was not handled on the one before comes again, or nobody waits for it any more.
        self.queue = []
        self.early = []
        self.missed = False
        self.stale = self.desired
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
        session = self.session
        if not self.filters:
            self.note = _note(session) if session.mqtt.present else []
            if not self.note:
                _write_note(session, [])  # before the first: else a cut here would leave an old note that is not true
        self.filters.append(name)
        if name not in self.note:
            session.mqtt.subscribe(name.replace("+", session.record.device_id), 1)
            self.note.append(name)
            _write_note(session, self.note)

    def hear(self, topic, body):
        # From within MQTT; a body of None was too large to be read.
        try:
            if topic.startswith(b"$iothub/twin/res/"):
                _, _, _, status, query = str(topic, "utf-8").split("/")
                pairs = query[1:].split("&")
                if self.rid in pairs:
                    pairs.remove(self.rid)
                    self.answer = int(status), pairs, body
                return
        except ValueError:
            return self._dropped(topic)
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
            while self.queue or self.stale:
                if self.stale:
                    self.refresh()
                    continue
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
            self._patch(body)
        elif not topic.startswith(b"devices/"):
            self._dropped(topic)
        elif not self.message:
            self.early.append(item)
        # A message that does not fit stays with the Hub, which gives it up in the end: nobody has had it.
        elif body is not None and self._call(self.message, body, _properties(topic)) and stream is self.session.stream:
            for puback in ack:
                stream.write(puback)

    def _dropped(self, topic):
        self.session.device.identity.log("dropped", repr(bytes(topic[:80])))

    def _call(self, handler, *args):
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
                self.session.skip(len(body))
            if not status:
                done = self._call(_result, handler, payload)
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
        try:
            return int(pairs[0][9:]) if pairs else 0, body  # $version=
        except ValueError:
            raise AzureError("protocol", "hub.twin")

    def twin(self):
        body = self.ask("GET", b"")[1]
        if body is not None:
            try:
                twin = loads(body)
                twin["desired"]["$version"] + 0
                return twin
            except (ValueError, KeyError, TypeError):
                raise AzureError("protocol", "hub.twin")
            except MemoryError:
                self.session.skip(len(body))
                body = None
        raise AzureError("too-big", "hub.twin")

    def refresh(self):
        # What has changed since the application last heard of it, by comparison: also what was deleted. Desired
        # properties for which there is no room are left alone until they change.
        self.stale = False
        first = self.version is None
        try:
            document = self.twin()["desired"]
            version = document.pop("$version")
            patch = _difference(self.document, document, first)
        except (AzureError, MemoryError) as e:
            if isinstance(e, AzureError) and e.code != "too-big":
                raise
            document = patch = self.version = None  # whatever comes next is news
            self.document = {}
            return
        self.document, self.version = document, version
        if patch or first:
            self._call(self.desired, patch, version)

    def _patch(self, body):
        patch = loads(body) if body else None
        if not isinstance(patch, dict):
            self.stale = True
            return
        version = patch.pop("$version")
        if self.stale or self.version is None or version != self.version + 1:
            # One is missing; an older one is no news.
            self.stale = self.stale or self.version is None or version > self.version
        else:
            _merge(self.document, patch)
            self.version = version
            self._call(self.desired, patch, version)


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


def _json(body):
    try:
        return loads(body)
    except (ValueError, TypeError):
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


def _note(session):
    # The filters that the Hub's session is known to have.
    try:
        with open(session.device.identity.root + _NOTE) as f:
            first, *names = f.read().split("\n")
        return names if first == _whose(session) and names and names.pop() == "." else []
    except (OSError, ValueError):
        return []


def _write_note(session, names):
    try:
        with open(session.device.identity.root + _NOTE, "w") as f:
            if names:
                f.write("\n".join([_whose(session)] + names + ["."]))
    except OSError:  # nowhere to write: every connection subscribes
        pass


def _whose(session):
    return session.record.hub + " " + session.record.device_id
