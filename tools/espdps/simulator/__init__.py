"""A simulator of Azure DPS, IoT Hub and their certificate authority, for this machine only.

What is imported from here stays; everything below is free to change.
"""

from .options import Options
from .server import GROUP, Simulator, serving
from .trouble import (
    Assigning,
    Chain,
    Cut,
    Early,
    Error,
    Late,
    Profile,
    Raw,
    Refuse,
    Rid,
    Shift,
    Silence,
    Spelling,
    State,
    Trouble,
    Vanished,
)

__all__ = [
    "GROUP",
    "Assigning",
    "Chain",
    "Cut",
    "Early",
    "Error",
    "Late",
    "Options",
    "Profile",
    "Raw",
    "Refuse",
    "Rid",
    "Shift",
    "Silence",
    "Simulator",
    "Spelling",
    "State",
    "Trouble",
    "Vanished",
    "serving",
]
