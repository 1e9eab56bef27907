# umqtt.simple 1.4 (MicroPython 1.24): its connect() has no timeout, so the bare socket gets one when it is stored.
# Loaded on such a board only.
from umqtt.simple import MQTTClient


class Client(MQTTClient):
    """As another MQTTClient that has not been used yet, with the connect() of later releases."""

    def __init__(self, client):
        self.timeout = None
        super().__init__(
            client.client_id, client.server, client.port, client.user, client.pswd, client.keepalive, client.ssl
        )

    def connect(self, clean_session, timeout):
        self.timeout = timeout
        return super().connect(clean_session)

    @property
    def sock(self):
        return self.socket

    @sock.setter
    def sock(self, sock):
        self.socket = sock
        if hasattr(sock, "settimeout"):  # not None, and not the stream
            sock.settimeout(self.timeout)
