"""CircuitPython's board: the pins of the virtual one."""

LED = "LED"
BUTTON = "BUTTON"
