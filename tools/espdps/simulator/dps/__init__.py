"""The Device Provisioning Service as a device sees it over MQTT: sign-in, registration, allocation.

Its HTTPS interface is in service/."""
