# An IoT Hub session: one MQTT connection of one device after the other, telemetry, and what keeps it alive.
import json

from micropython import const

from . import clock
from .clock import due, left
from .errors import AzureError
from .mqtt import KEEPALIVE, Mqtt

_LARGEST = const(262144)  # bytes of a message (IoT Hub quotas)


class Session:
    """A connection to the Hub, and to the same one again. Every method raises AzureError only; after one the connection
    is over, and Device.connect() makes the next. Use it in one thread.

    Handlers are called from poll(), one at a time, and may use the session; one that raises is told to the log.
    """

    sent = 0
    on_expiring = None  # called with the seconds left when renewal has failed for long

    mqtt = None
    cloud = None  # what the application wants to hear, if anything
    _report = None  # reported properties (JSON) for the next poll()
    _skipped = 0  # bytes of the last message for which the heap had no room

    def __init__(self, device):
        self.device = device

    def open(self, record):
        # Connect as a Record of the store says; if the Hub takes it, it is the active one from then on.
        self.record = record
        identity = self.device.identity
        name, hub = record.device_id, record.hub
        end = record.not_after
        self.stream = stream = identity.stream("hub.connect", record)
        user = "%s/%s/?api-version=%s%s" % (hub, name, identity.hub_api, identity.model)
        password = "" if end else identity.password(hub, name)
        self.events = "devices/%s/messages/events/" % name
        will = identity.will and (self.events, identity.will.encode(), False, 1)
        # Not a clean session: of that the Hub would deliver nothing that was said while the board was away.
        self.mqtt = Mqtt(stream, self._on_message, hub, identity.port, name, user, password, KEEPALIVE, will, False)
        from .packets import Packets  # not before TLS has had the certificate: the heap is full then

        stream.packets = Packets(stream)
        self._alive()
        self._heard = None
        try:
            if not record.active:
                from .store import activate

                activate(record)
        except AzureError as e:  # the flash is full: it stays pending, and is tried first the next time, too
            identity.log("error", str(e))
        text = "%s on %s" % (name, hub)
        now = clock.now()
        # A token is good for one connection, so before it ends there is another one.
        self.renew_at = now + identity.token_life * 4 // 5 if password else 0
        if end:
            start = record.not_before
            until = clock.iso(end)
            text += ", until " + until
            # As set, or up to 5 % of its life before, by the certificate's own lot. When that is over: after a tenth of
            # what is left, 2 seconds to an hour.
            life = end - start
            self.renew_at = max(
                start + life * identity.renew // 100 - life * record.spread // 5100,
                now + max(2, min((end - now) // 10, 3600)),
            )
            if self.device.renewal:
                self.renew_at = 1  # the connection was lost meanwhile
            if identity.report:
                self._report = '{"certificate":{"validFrom":"%s","validUntil":"%s"}}' % (clock.iso(start), until)
        if self.cloud:
            self.cloud.resume()
        identity.log("hub.ready", text)

    def send(self, body, properties=None, qos=1):
        """One telemetry message. body: dict or list (sent as JSON), bytes or str; properties: dict of texts, numbers
        or None for a name without a value; "$.mid" and the like are the Hub's own (IoT Hub's documentation).

        With qos=1 the Hub has it when this returns. AzureError "message" for more than 256 KB, or another QoS.
        """
        self.stream.step = "hub.send"
        body, bag = packed(body, properties, qos)
        self.mqtt.publish(self.events + bag, body, qos)
        if qos:
            self._alive()
        self.sent += 1
        self.device.identity.log("hub.sent", "message %d" % self.sent)

    def _alive(self):
        self._ping = due(KEEPALIVE * 500)

    def poll(self, ms):
        """For ms milliseconds handle what the Hub sends, keep the connection alive, renew certificate or token in time.

        With 0 it takes up what is there. Call it at least once in two minutes, which is how long the Hub waits.
        """
        end = due(ms)
        over = False
        if self._report:
            if not self.mqtt.present:  # the answer comes unasked, and is not waited for
                self.mqtt.subscribe(b"$iothub/twin/res/#", 1)
                self.mqtt.present = True
            self.mqtt.publish("$iothub/twin/PATCH/properties/reported/?$rid=r", self._report)
            self._report = None
        while True:
            if self.cloud:
                self.cloud.work()
            if over:
                return
            if self.renew_at and clock.now() >= self.renew_at:
                if self.record.not_after:
                    from .renew import step

                    step(self)
                else:
                    self.device.connect()
            stream = self.stream
            stream.step = "hub.poll"
            if left(self._ping) <= 0:
                self.mqtt.wait(1)  # the answer may lie here since the application was last away
                if self._heard == stream.heard:  # nothing since the last ping: gone for one keepalive at most
                    raise AzureError("timeout", "hub.poll")
                self._heard = stream.heard
                self.mqtt.ping()
                self._alive()
            self.mqtt.wait(max(1, min(left(end), left(self._ping))))
            over = left(end) <= 0

    def renew(self):
        """Renew the certificate, or the token, at the next poll()."""
        self.renew_at = 1

    def on_message(self, handler):
        """handler(body, properties) gets each cloud-to-device message: bytes, and a dict of str, or None where a name
        has no value. It is acknowledged when the handler has returned; if that raises, the Hub sends it again.
        """
        self._hear().on_message(handler)

    def on_method(self, name, handler):
        """handler(payload) -> (status, what json.dumps() takes) for each call of the method; payload: what its JSON
        says. A method without a handler is answered with 404, a handler that raises with 500.
        """
        self._hear().methods[name.lower()] = handler
        self.cloud.want("$iothub/methods/POST/#")

    def on_desired(self, handler):
        """handler(patch, version) gets the desired properties: at once all there are (and None for what has gone since
        the last call), then every change in its order, also what changed while there was no connection.
        patch: dict, None for what was deleted; version: int.
        """
        self._twin().on_desired(handler)

    def report(self, properties):
        """Reported properties (dict, None deletes) for the device twin -> their version there, int."""
        return self._twin().ask("PATCH/properties/reported", dumps(properties))[0]

    def twin(self):
        """The device twin: {"desired": {..., "$version": int}, "reported": {..., "$version": int}}."""
        return self._twin().get()

    def _twin(self):
        cloud = self._hear()
        if not cloud.twin:
            from .twin import Twin

            cloud.twin = Twin(cloud)
        return cloud.twin

    def _hear(self):
        if not self.cloud:
            from .cloud import Cloud

            self.cloud = Cloud(self)
        return self.cloud

    def _skip(self, size):
        # A message was dropped, since the heap has no room for it: said if there was none as large.
        if size > self._skipped:
            self._skipped = size
            self.device.identity.log("skipped", "%d bytes" % size)
            if self.device.identity.report:
                self._report = self._report or '{"skipped":%d}' % size

    def _on_message(self, topic, body):
        # From within MQTT. A body of None is one that the heap has no room for; the Hub keeps such a message.
        stream = self.stream
        skipped = stream.packets.skipped
        if skipped:
            stream.packets.skipped = 0
            body = None
            stream.held = [topic]
            self._skip(skipped)
        if topic.startswith(b"$iothub/credentials/"):
            from .renew import hear

            hear(self, topic, body or b"null")
        elif self.cloud or topic.startswith(b"devices/"):
            self._hear().hear(topic, body)

    def close(self):
        """Say goodbye to the Hub."""
        if self.mqtt:
            self.mqtt.disconnect()


def dumps(value):
    """The JSON of a value; AzureError "message" if it has none (RFC 8259): MicroPython writes nan, or a repr()."""
    try:
        _check(value)
        return json.dumps(value)
    except (TypeError, ValueError, RuntimeError) as e:  # the latter two: it holds itself
        raise AzureError("message", "hub.send", str(e))


def _check(value):
    if isinstance(value, dict):
        for key in value:
            if not (key is None or isinstance(key, (str, int, bool))):
                raise TypeError(key)
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        if value is None or isinstance(value, (str, int, bool)) or isinstance(value, float) and value - value == 0:
            return
        raise TypeError(value)
    for item in value:
        _check(item)


def packed(body, properties, qos=1):
    # What Session.send() takes -> (body, properties) as they go over the wire, which it takes as well.
    if isinstance(properties, str):
        return body, properties
    bag = []
    if isinstance(body, (dict, list)):
        body = dumps(body)
        if not properties or "$.ct" not in properties:
            bag.append("$.ct=application%2Fjson&$.ce=utf-8")
    if properties:
        from .sas import quote

        for name, value in properties.items():
            bag.append(quote(name) + ("" if value is None else "=" + quote(str(value))))
    bag = "&".join(bag)
    if len(body) + len(bag) > _LARGEST or qos not in (0, 1):
        raise AzureError("message", "hub.send", str(len(body)))
    return body, bag
