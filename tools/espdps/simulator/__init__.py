"""A simulator of Azure DPS, IoT Hub and their certificate authority, for this machine only.

What is imported from here stays; everything below is free to change.
"""

from .controls import GROUP
from .memory.storage import StateFileError
from .options import Link, Options
from .server import Simulator, serving
from .trouble.actions import (
    Alert,
    Assigning,
    Chain,
    Cut,
    Delay,
    Early,
    Error,
    Flood,
    Form,
    Ignore,
    Late,
    Profile,
    Raw,
    Reconnect,
    Refuse,
    Rid,
    Shift,
    Silence,
    Spelling,
    State,
    Trouble,
    Vanished,
)
from .trouble.scenario import Scenario

__all__ = [
    "GROUP",
    "Alert",
    "Assigning",
    "Chain",
    "Cut",
    "Delay",
    "Early",
    "Error",
    "Flood",
    "Form",
    "Ignore",
    "Late",
    "Link",
    "Options",
    "Profile",
    "Raw",
    "Reconnect",
    "Refuse",
    "Rid",
    "Scenario",
    "Shift",
    "Silence",
    "Simulator",
    "Spelling",
    "State",
    "StateFileError",
    "Trouble",
    "Vanished",
    "serving",
]
