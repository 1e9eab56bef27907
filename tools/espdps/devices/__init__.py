"""Device folders on the PC: their files, settings, board profiles, plans, fleets, and which chip each is bound to.

Nothing here opens a port, asks a service or prints."""
