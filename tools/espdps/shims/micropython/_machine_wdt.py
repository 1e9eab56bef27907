# machine.WDT of the stand-ins: hunger is real, it ends the process.
# Not to be imported by name: machine.py brings it when asked for.
import _process


class WDT:
    # Once started it cannot be stopped, as on the chip: a program that does not feed it is reset.
    def __init__(self, id=0, timeout=5000):
        if id != 0:
            raise ValueError
        if timeout < 1:
            raise ValueError("WDT timeout too short")
        self._timeout = timeout
        self.feed()

    def feed(self):
        _process.starve_in(self._timeout)
