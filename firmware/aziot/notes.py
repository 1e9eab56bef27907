# What a board remembers of troubles from one start to the next, in notes.json: the API versions and the device key that
# work, and since when the Hub refuses it. The file exists only after such a trouble.
import json

from .runtime import read

_FILE = "notes.json"


def recall(identity):
    """Read the notes of an Identity. Those made for other settings, and a damaged file, count for nothing."""
    try:
        notes = json.loads(read(identity.root + _FILE))
        if notes["settings"] == identity.notes["settings"]:
            identity.notes = notes
            for name in ("dps_api", "hub_api", "secondary"):
                if name in notes:
                    setattr(identity, name, notes[name])
    except (OSError, ValueError, KeyError, TypeError):
        pass


def note(identity, **changes):
    """Add notes; None takes one out. What cannot be written is remembered until the next start."""
    notes = identity.notes
    notes.update(changes)
    for name in changes:
        if changes[name] is None:
            del notes[name]
    try:
        with open(identity.root + _FILE, "w") as f:
            json.dump(notes, f)
    except OSError as e:
        identity.log("notes", str(e))
