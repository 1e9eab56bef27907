# What device.json says, checked and handed to an Identity, and the form of names. Loaded once at a start, and for an
# answer of DPS.
from .errors import AzureError
from .runtime import os

# The largest value of numbers that must not be 0
_MOST = {"port": 65535, "timeout": 600, "token_life": 31536000, "renew": 90}
_SIGNS = {"registration_id": "-._:", "id_scope": "", "dps_host": "-.", "dps_api": "-", "hub_api": "-"}


def check(name, text, signs, most, step="identity", code="config"):
    """AzureError unless text is a str of 1 to most ASCII letters, digits and signs."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789" + signs
    if not isinstance(text, str) or not 0 < len(text) <= most or text.lower().strip(letters):
        raise AzureError(code, step, name)


def assigned(hub, device_id):
    """AzureError "protocol" unless both are of their documented form: they go into user names, topics and the store."""
    check("assignedHub", hub, "-.", 253, "dps.register", "protocol")
    check("deviceId", device_id, "-._%*?!(),:=@$'", 128, "dps.register", "protocol")


def apply(identity, config):
    """config: what device.json says. AzureError "config" names what is missing or cannot be used."""
    known = type(identity)
    for name, value in config.items():
        good = getattr(known, name, None)
        if good is None:  # of a later release
            continue
        if type(value) is not type(good):
            raise AzureError("config", "identity", name)
        if type(value) is int and not int(name in _MOST) <= value <= _MOST.get(name, 1 << 30):
            raise AzureError("config", "identity", name)
        setattr(identity, name, value)
    for name in _SIGNS:
        check(name, getattr(identity, name), _SIGNS[name], 253)
    if identity.auth not in ("symmetric-key", "x509"):
        raise AzureError("config", "identity", "auth")
    if identity.model_id:
        from .sas import quote

        identity.model = "&model-id=" + quote(identity.model_id)
        identity.payload = dict(identity.payload)
        identity.payload.setdefault("modelId", identity.model_id)
    identity.notes["settings"] = [identity.registration_id, identity.dps_api, identity.hub_api]
    try:
        os.stat(identity.root + "notes.json")
    except OSError:
        return
    from .notes import recall

    recall(identity)
