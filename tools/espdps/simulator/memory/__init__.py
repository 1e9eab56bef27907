"""What the services remember: enrollments, registrations, devices, twins and messages, also across a restart.

Nothing here answers a client."""
