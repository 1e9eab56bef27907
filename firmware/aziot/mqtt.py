# One MQTT session over a Stream, by umqtt.simple as the board's firmware has it.
from umqtt.simple import MQTTClient, MQTTException

from .errors import AzureError


class Mqtt:
    """connect() first. on_message(topic, body) gets bytes-likes; every method raises AzureError only."""

    def __init__(self, stream, on_message):
        self.stream = stream
        self.on_message = on_message
        self.client = None

    def connect(self, host, port, client_id, user, password, keepalive=0):
        self.client = MQTTClient(client_id, host, port, user, password, keepalive, ssl=self.stream)
        self.client.set_callback(self.on_message)
        self.client.sock = None  # older releases set it late; close() looks at it
        try:
            # The timeout here is for the bare socket until the TCP connection stands.
            self._do(self.client.connect, True, self.stream.timeout / 1000)
        except AzureError:
            self.close()
            raise

    def subscribe(self, topic, qos=0):
        self.stream.within()
        self._do(self.client.subscribe, topic, qos)

    def publish(self, topic, body, qos=0):
        self.stream.within()
        self._do(self.client.publish, topic, body, False, qos)

    def ping(self):
        self.stream.within()
        self._do(self.client.ping)

    def wait(self, ms):
        """Handle one packet if one comes within ms."""
        self._do(self._wait, ms)

    def _wait(self, ms):
        self.stream.listen(ms)
        self.client.wait_msg()

    def close(self):
        client, self.client = self.client, None
        if client:
            try:
                (client.sock or self.stream).close()
            except OSError:
                pass

    def _do(self, function, *args):
        step = self.stream.step
        try:
            return function(*args)
        except MQTTException as e:
            code = e.args[0]
            raise AzureError("suback" if code == 0x80 else "connack-%d" % code, step)
        except (AssertionError, IndexError):  # umqtt.simple's check of what the server sent
            raise AzureError("protocol", step, "not MQTT")
        except (OSError, ValueError, MemoryError) as e:
            raise self.stream.error(e)
