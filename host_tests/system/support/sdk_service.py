"""A backend by azure-iot-hub and azure-iot-deviceprovisioning, unmodified, told what to do on stdin (sdk.py).

Nothing of esp-dps may be used here, and no key may be printed.
"""

from azure.iot.deviceprovisioning import DeviceProvisioningClient
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, QuerySpecification, Twin, TwinProperties
from sdk_steps import main


class Backend:
    def open(self, hub, dps, policy, key):
        secret = f"SharedAccessKeyName={policy};SharedAccessKey={key}"
        self.hub = IoTHubRegistryManager.from_connection_string(f"HostName={hub};{secret}")
        self.dps = DeviceProvisioningClient.from_connection_string(f"HostName={dps};{secret}", retry_total=0)

    # The hub

    def device(self, id):
        return self.hub.get_device(id).as_dict()

    def devices(self):
        return [device.as_dict() for device in self.hub.get_devices()]

    def query(self, text, page=None, token=None):
        found = self.hub.query_iot_hub(QuerySpecification(query=text), token, page)
        return {"items": [twin.as_dict() for twin in found.items], "token": found.continuation_token}

    def statistics(self):
        return {
            "service": self.hub.get_service_statistics().as_dict(),
            "registry": self.hub.get_device_registry_statistics().as_dict(),
        }

    def set_status(self, id, etag, status):
        return self.hub.update_device_with_certificate_authority(id, etag, status).as_dict()

    def delete_device(self, id, etag=None):
        self.hub.delete_device(id, etag)

    def twin(self, id):
        return self.hub.get_twin(id).as_dict()

    def update_twin(self, id, desired=None, tags=None, etag=None):
        return self.hub.update_twin(id, _twin(desired, tags), etag).as_dict()

    def call(self, id, method, payload):
        request = CloudToDeviceMethod(method_name=method, payload=payload, response_timeout_in_seconds=30)
        return self.hub.invoke_device_method(id, request).as_dict()

    # DPS

    def enroll(self, kind, id, body, **options):
        return dict(self._of(kind).create_or_update(id, body, **options))

    def enrollment(self, kind, id):
        return dict(self._of(kind).get(id))

    def unenroll(self, kind, id, **options):
        self._of(kind).delete(id, **options)

    def registration(self, id):
        return dict(self.dps.device_registration_state.get(id))

    def delete_registration(self, id):
        self.dps.device_registration_state.delete(id)

    def _of(self, kind):
        return {"enrollment": self.dps.enrollment, "group": self.dps.enrollment_group}[kind]


def _twin(desired, tags):
    return Twin(properties=TwinProperties(desired=desired) if desired is not None else None, tags=tags)


if __name__ == "__main__":
    main(Backend())
