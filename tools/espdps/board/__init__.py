"""A board at its serial port or CIRCUITPY drive: prompt, console, flashing, identity backup and checks.

Nothing here asks Azure or a simulator, and nothing prints."""
