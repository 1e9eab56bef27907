# machine.Pin of the stand-ins: a level that is remembered and moves nothing.
# Not to be imported by name: machine.py brings it when asked for.
from umachine import PinBase

_levels = {}


class Pin(PinBase):
    IN = 1
    OUT = 3
    OPEN_DRAIN = 7
    PULL_DOWN = 1
    PULL_UP = 2
    IRQ_RISING = 1
    IRQ_FALLING = 2

    def __init__(self, id, mode=-1, pull=-1, *, value=None):
        self._id = id
        self.init(mode, pull, value=value)

    def init(self, mode=-1, pull=-1, *, value=None):
        if value is not None:
            self.value(value)

    def value(self, level=None):
        # Two objects for the same pin see the same level, as they do in silicon.
        if level is None:
            return _levels.get(self._id, 0)
        _levels[self._id] = 1 if level else 0

    __call__ = value

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)

    def __repr__(self):
        return f"Pin({self._id})"
