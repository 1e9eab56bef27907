"""What is on the wire: TLS, MQTT packets and sessions, and time (NTP).

Nothing here knows DPS, hubs or what they remember."""
