"""A simulator of Azure DPS, IoT Hub and their certificate authority, for this machine only.

What is imported from here stays; everything below is free to change.
"""

from .options import Options
from .server import GROUP, Simulator, serving
from .trouble import (
    Assigning,
    Chain,
    Cut,
    Error,
    Raw,
    Refuse,
    Rid,
    Shift,
    Silence,
    State,
    Trouble,
)

__all__ = [
    "GROUP",
    "Assigning",
    "Chain",
    "Cut",
    "Error",
    "Options",
    "Raw",
    "Refuse",
    "Rid",
    "Shift",
    "Silence",
    "Simulator",
    "State",
    "Trouble",
    "serving",
]
