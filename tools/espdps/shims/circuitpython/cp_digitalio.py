"""CircuitPython's digitalio: a pin can be taken once. Nobody presses the button unless BOARD_BUTTON is set."""

import os


class Pull:
    UP = "up"


class DigitalInOut:
    _taken: set[str] = set()

    def __init__(self, pin: str) -> None:
        if pin in self._taken:
            raise ValueError(f"{pin} in use")
        self._taken.add(pin)
        self._pin = pin
        self.value = False

    def switch_to_output(self, value: bool = False) -> None:
        self.value = value

    def switch_to_input(self, pull: str) -> None:
        self.value = not os.environ.get("BOARD_BUTTON")

    def deinit(self) -> None:
        self._taken.discard(self._pin)

    def __enter__(self) -> "DigitalInOut":
        return self

    def __exit__(self, *_: object) -> None:
        self.deinit()
