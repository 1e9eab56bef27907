# An IoT Hub session: one MQTT connection of one device, and the change to a new certificate.
import json

from micropython import const

from . import clock, store
from .clock import due, left
from .errors import AzureError
from .mqtt import Mqtt

_KEEPALIVE = const(120)  # seconds; the Hub allows up to 1177


class Session:
    """A connection to the Hub, and to the same one again; every method raises AzureError only. Use it in one thread."""

    sent = 0
    on_expiring = None  # called with the seconds left when renewal has failed for long

    mqtt = None

    def __init__(self, device):
        self.device = device

    def open(self, record):
        # Connect as a Record of the store says; if the Hub takes it, it is the active one from then on.
        self.record = record
        identity = self.device.identity
        name, hub = record.device_id, record.hub
        end = record.not_after
        self._stream = stream = identity.stream("hub.connect", record)
        user = "%s/%s/?api-version=%s" % (hub, name, identity.hub_api)
        password = "" if end else identity.password(hub, name)
        self.mqtt = Mqtt(stream, self._on_message, hub, identity.port, name, user, password, _KEEPALIVE)
        self._ping = due(_KEEPALIVE * 500)
        try:
            if not record.active:
                store.activate(record)
        except AzureError as e:  # the flash is full: it stays pending, and is tried first the next time, too
            identity.log("error", str(e))
        text = "%s on %s" % (name, hub)
        self.renew_at = 0
        if end:
            start = record.not_before
            text += ", until " + clock.iso(end)
            # As set, or up to 5 % of its life before, by the certificate's own lot. When that is over: after a tenth of
            # what is left, 2 seconds to an hour.
            life = end - start
            now = clock.now()
            self.renew_at = max(
                start + life * identity.renew // 100 - life * record.spread // 5100,
                now + max(2, min((end - now) // 10, 3600)),
            )
            if self.device.renewal:
                self.renew_at = 1  # the connection was lost meanwhile
            if identity.report:
                self.report({"certificate": {"validFrom": clock.iso(start), "validUntil": clock.iso(end)}})
        identity.log("hub.ready", text)

    def report(self, properties):
        """Reported properties (dict) for the device twin; they leave with what is sent or waited for next."""
        self.mqtt.publish("$iothub/twin/PATCH/properties/reported/?$rid=r", json.dumps(properties))

    def send(self, body, properties=None, qos=1):
        """One telemetry message. body: dict or list (sent as JSON) or bytes or str; properties: dict of str.

        With qos=1 the Hub has it when this returns.
        """
        self._stream.step = "hub.send"
        bag = []
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            bag.append("$.ct=application%2Fjson&$.ce=utf-8")
        if properties:
            from .sas import quote

            for name, value in properties.items():
                bag.append(name + "=" + quote(str(value)))
        self.mqtt.publish("devices/%s/messages/events/%s" % (self.record.device_id, "&".join(bag)), body, qos)
        self._ping = due(_KEEPALIVE * 500)
        self.sent += 1
        self.device.identity.log("hub.sent", "message %d%s" % (self.sent, " acknowledged" if qos else ""))

    def poll(self, ms):
        """Handle what the Hub sends for ms milliseconds, keep the connection alive, renew the certificate in time."""
        end = due(ms)
        while left(end) > 0:
            if self.renew_at and clock.now() >= self.renew_at:
                from .renew import step

                step(self)
            self._stream.step = "hub.poll"
            if -left(self._stream.heard) > _KEEPALIVE * 1500:
                raise AzureError("timeout", "hub.poll", "the Hub is silent")
            if left(self._ping) <= 0:
                self.mqtt.ping()
                self._ping = due(_KEEPALIVE * 500)
            self.mqtt.wait(max(1, min(left(end), left(self._ping))))

    def _on_message(self, topic, body):
        if topic.startswith(b"$iothub/credentials/"):
            from .renew import hear

            hear(self, topic, body)

    def close(self):
        if self.mqtt:
            self.mqtt.close()
