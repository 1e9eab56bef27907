"""The HTTPS interfaces of DPS, IoT Hub and the device registry, for service clients.

Nothing here speaks MQTT."""
