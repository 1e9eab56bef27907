"""CircuitPython's supervisor, whose ticks go round after six days."""

import cp_machine


def ticks_ms() -> int:
    return int(cp_machine.uptime() * 1000 + 0x1FFF0000) & 0x1FFFFFFF
