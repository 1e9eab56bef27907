"""IoT Hub as a device sees it over MQTT: sign-in, telemetry, messages, methods, twin, certificate renewal.

Its HTTPS interface is in service/."""
