# An IoT Hub session: one MQTT connection of one device.
import json

from micropython import const

from .clock import due, left
from .errors import AzureError
from .mqtt import Mqtt

_KEEPALIVE = const(120)  # seconds; the Hub allows up to 1177


class Session:
    """An open connection to the Hub; every method raises AzureError only. Use it in one thread."""

    def __init__(self, identity, hub, device_id, record=None):
        """record: whose certificate to come with, if it has one, else with the onboarding credential."""
        self.device_id = device_id
        self.sent = 0
        self._log = identity.log
        self._stream = stream = identity.stream("hub.connect", record)
        user = "%s/%s/?api-version=%s" % (hub, device_id, identity.hub_api)
        password = "" if record and record.not_after else identity.password(hub, device_id)
        self._mqtt = Mqtt(stream, self._on_message, hub, identity.port, device_id, user, password, _KEEPALIVE)
        self._ping = due(_KEEPALIVE * 500)

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
        self._mqtt.publish("devices/%s/messages/events/%s" % (self.device_id, "&".join(bag)), body, qos)
        self._ping = due(_KEEPALIVE * 500)
        self.sent += 1
        self._log("hub.sent", "message %d%s" % (self.sent, " acknowledged" if qos else ""))

    def poll(self, ms):
        """Handle what the Hub sends for ms milliseconds, and keep the connection alive."""
        self._stream.step = "hub.poll"
        end = due(ms)
        while left(end) > 0:
            if -left(self._stream.heard) > _KEEPALIVE * 1500:
                raise AzureError("timeout", "hub.poll", "the Hub is silent")
            if left(self._ping) <= 0:
                self._mqtt.ping()
                self._ping = due(_KEEPALIVE * 500)
            self._mqtt.wait(max(1, min(left(end), left(self._ping))))

    def _on_message(self, topic, body):
        pass

    def close(self):
        self._mqtt.close()
