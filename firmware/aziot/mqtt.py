# One MQTT connection over a Stream, by umqtt.simple as the board's firmware has it.
from micropython import const
from umqtt.simple import MQTTClient

from .errors import AzureError

KEEPALIVE = const(120)  # seconds; IoT Hub allows up to 1177
_TCP = const(15000)  # ms for the bare connection: like the name's resolution before it, it feeds no watchdog


class Mqtt:
    """Connects at once. on_message(topic, body) gets bytes-likes.

    Every method raises AzureError, and after that the connection is closed.
    """

    def __init__(
        self, stream, on_message, host, port, client_id, user, password, keepalive=KEEPALIVE, will=None, clean=True
    ):
        self.stream = stream
        client = MQTTClient(client_id, host, port, user, password, keepalive, ssl=stream)
        if not hasattr(client, "ssl_params"):  # umqtt.simple 1.4, which MicroPython 1.24 has
            from .umqtt14 import Client

            client = Client(client)
        self.client = client
        client.set_callback(on_message)
        if will:
            client.set_last_will(*will)
        # Whether the service still has the subscriptions of the session before (MQTT 3.1.1, 3.2.2.2)
        self.present = self._do(client.connect, clean, min(stream.timeout, _TCP) / 1000)
        client.user = client.pswd = None  # a token is 200 bytes of the heap

    def subscribe(self, topic, qos=0):
        self._talk(self.client.subscribe, topic, qos)

    def publish(self, topic, body, qos=0):
        if self.client.pid > 65000:  # umqtt.simple counts on past the two bytes there are
            self.client.pid = 0
        if isinstance(body, str):  # it counts characters where bytes are meant
            body = body.encode()
        self._talk(self.client.publish, topic, body, False, qos)

    def ping(self):
        self._talk(self.client.ping)

    def wait(self, ms):
        """Handle one packet if one comes within ms."""
        self._do(self.stream.listen, ms)
        self._do(self.client.wait_msg)

    def disconnect(self):
        """Say goodbye, and what is still to be said before it; then close."""
        try:
            self.stream.write(b"\xe0\0")
            self.stream.flush()
        except Exception:  # noqa: BLE001 whatever it is, it is over
            pass
        self.close()

    def close(self):
        try:
            # umqtt.simple's socket is the stream, or the bare socket if it came no further
            (self.client.sock or self.stream).close()
        except OSError:
            pass

    def _talk(self, *what):
        # One deadline until the answer is there, whatever else comes meanwhile.
        if self.stream.tls:
            self.stream.begin()
        self._do(*what)

    def _do(self, function, *args):
        try:
            return function(*args)
        except MemoryError:
            self.close()
            raise AzureError("memory", self.stream.step)
        except Exception as e:  # noqa: BLE001 no code of the application runs in here
            self.close()
            from .faults import fault

            raise fault(e, self.stream)
