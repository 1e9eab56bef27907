# Azure identity for small boards: DPS registration, issued certificates, IoT Hub.
# Nothing is imported here, so that an application loads only what it uses.
__version__ = "0.1.0"
