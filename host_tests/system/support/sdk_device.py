"""A device by azure-iot-device, unmodified, told what to do on stdin; runs in the SDKs' environment (sdk.py).

Nothing of esp-dps may be used here, and no key may be printed.
"""

import json
import threading

from azure.iot.device import X509, IoTHubDeviceClient, Message, MethodResponse, ProvisioningDeviceClient, ProxyOptions
from sdk_steps import main, say


class Device:
    def __init__(self):
        self.client = None

    def register(self, host, id, scope, roots, proxy, key=None, pem=None, payload=None):
        options = _options(roots, proxy)
        if key is not None:
            client = ProvisioningDeviceClient.create_from_symmetric_key(host, id, scope, key, **options)
        else:
            client = ProvisioningDeviceClient.create_from_x509_certificate(host, id, scope, X509(pem, pem), **options)
        if payload is not None:
            client.provisioning_payload = payload
        result = client.register()
        state = result.registration_state
        return {
            "status": result.status,
            "operation": result.operation_id,
            "hub": state.assigned_hub if state else None,
            "device": state.device_id if state else None,
            "substatus": state.sub_status if state else None,
            "etag": state.etag if state else None,
            "payload": json.loads(state.response_payload) if state and state.response_payload else None,
        }

    def connect(self, hub, id, roots, proxy, key=None, pem=None, token_life=3600):
        options = {**_options(roots, proxy), "connection_retry_interval": 1}
        if key is not None:
            self.client = IoTHubDeviceClient.create_from_symmetric_key(key, hub, id, sastoken_ttl=token_life, **options)
        else:
            self.client = IoTHubDeviceClient.create_from_x509_certificate(X509(pem, pem), hub, id, **options)
        client = self.client
        client.on_connection_state_change = lambda: say(said="connection", connected=client.connected)
        client.connect()
        client.on_message_received = _message
        client.on_twin_desired_properties_patch_received = lambda patch: say(said="desired", patch=patch)
        client.on_method_request_received = self._method

    def _method(self, request):
        say(said="method", name=request.name, payload=request.payload)
        if request.name == "echo":
            status, payload = 200, {"echo": request.payload}
        elif request.name == "broken":
            status, payload = 500, {"why": "it broke"}
        else:
            status, payload = 404, None
        self.client.send_method_response(MethodResponse.create_from_method_request(request, status, payload))

    def send(self, body, properties, content_type="application/json", encoding="utf-8", message_id=None):
        message = Message(body, message_id, encoding, content_type)
        message.custom_properties.update(properties)
        message.correlation_id = "c 1/2"
        self.client.send_message(message)

    def send_later(self, body, properties):
        """Does not wait for the acknowledgement."""
        threading.Thread(target=self.send, args=(body, properties), daemon=True).start()

    def twin(self):
        return self.client.get_twin()

    def report(self, patch):
        self.client.patch_twin_reported_properties(patch)


def _options(roots, proxy):
    with open(roots) as file:
        return {"server_verification_cert": file.read(), "proxy_options": ProxyOptions("HTTP", "127.0.0.1", proxy)}


def _message(message):
    say(
        said="message",
        body=message.data.decode(),
        id=message.message_id,
        properties=message.custom_properties,
        content_type=message.content_type,
    )


if __name__ == "__main__":
    main(Device())
