"""CircuitPython's watchdog."""


class WatchDogMode:
    RESET = "reset"
    RAISE = "raise"
