"""Clients of DPS, IoT Hub and the device registry, and a registration from the PC.

The same code speaks to Azure and to a simulator. Nothing here opens a serial port or prints."""
