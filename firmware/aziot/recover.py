# What to do when the Hub or DPS refuses this board or cannot be reached. Loaded only after a failure.
#
# Only CONNACK 4 and 5 are refusals. An outage of the Hub's sign-in looks the same, so a valid identity is tried again
# for some minutes, then DPS is asked where the Hub is, and only after two hours for another certificate, once.
from binascii import a2b_base64
from os import urandom

from micropython import const

from . import clock, forget
from .clock import due, left
from .errors import AzureError
from .notes import note

_REFUSED = ("connack-4", "connack-5")
_HUB_API = "2021-04-12"  # the documented default
_DPS_APIS = ("2026-11-01", "2025-07-01-preview")
_LONG = const(7200)  # seconds of refusals after which another certificate may help
_MOST = const(43200)  # seconds between two questions to DPS


def hub(device, record, e, valid):
    """The Hub refuses a Record, or is out of reach: True if it is connected now, False if the next of the valid Records
    is to be tried, or DPS after the last. Raises what the caller is to wait out."""
    identity = device.identity
    if e.code == "tls-date" and _clock_moved(device):
        e = _opened(device, record)
        if not e:
            return True
    state = device.trouble = device.trouble or {}
    refused = e.code in _REFUSED
    if refused and not record.active:
        state["pending"] = record
    if refused or e.code in ("tls-alert", "config"):
        if record is valid[-1]:
            new = "refused" not in identity.notes
            ready = _ready(identity, state, valid[0], identity.refusal_patience if refused else identity.patience)
            if refused and (new or ready) and _other_way(device, record):
                return True
            if not ready and (refused or _is_ours(identity, record)):
                raise e
            if not identity.refusal_patience:
                state["keep"] = None
    elif _lost(state, identity.patience):
        state["keep"] = valid[0] if valid[0].not_after else None
    else:
        raise e
    identity.log("error", str(e))
    return False


def _opened(device, record):
    # The error, or None if the Hub takes the Record.
    try:
        device.open(record)
    except AzureError as e:
        return e


def _clock_moved(device):
    # A certificate's dates say that the clock may be wrong. Whether setting it changed that.
    before = clock.now()
    device.set_clock(False)
    return abs(clock.now() - before) > 60


def _ready(identity, state, newest, patience):
    # Whether the refusals have lasted long enough to ask DPS: after the patience, or up to twice that, then each time
    # after about twice as long as before. By the clock, for a board may sleep or restart meanwhile.
    now = clock.now()
    since, until = identity.notes.get("refused", (now + 1, 0))
    if since > now:  # the first one, or the clock was wrong
        since = now
        until = now + patience * (256 + urandom(1)[0]) // 256
        note(identity, refused=[since, until])
    elif now >= until:
        note(identity, refused=[since, now + min((now - since) * (192 + urandom(1)[0] // 2) // 256, _MOST)])
    if now < until:
        return False
    # Not for another certificate if one that was issued meanwhile is refused as well.
    long = now - since >= _LONG and newest.not_before < since
    state["keep"] = newest if newest.not_after and not long else None
    return True


def _lost(state, patience):
    # The Hub is out of reach: whether it is time to ask DPS where it is. Some time after the first failure, then with
    # growing waits, each of a random length.
    ask = state.get("ask")
    if ask is None:
        state["patience"] = patience
    elif left(ask) > 0:
        return False
    patience = state["patience"]
    state["ask"] = due(patience * (1000 + urandom(1)[0] * 4))
    state["patience"] = min(patience * 2, _MOST)
    return ask is not None


def _is_ours(identity, record):
    # Whether the certificate is for the key of this board's CSR: both may have been replaced since.
    csr = identity.csr()
    if not (record.leaf and csr):
        return True
    with open(record.path, "rb") as f:
        leaf = f.read(record.leaf).split(b"-----")[2]
    from .x509 import pick

    try:
        pick([b"".join(leaf.split())], csr, identity.registration_id, 0)
    except AzureError as e:
        return e.code != "cert-key"
    return True


def _two_keys(identity):
    try:
        return identity.auth != "x509" and "secondary_device_key" in identity.json("secrets.json")
    except AzureError:
        return False


def _other_way(device, record):
    # With the other device key, then with the oldest API version; what works is noted.
    identity = device.identity
    secondary, hub_api = identity.secondary, identity.hub_api
    if not record.not_after and _two_keys(identity):
        identity.secondary = not secondary
        if not _opened(device, record):
            note(identity, secondary=identity.secondary)
            return True
        identity.secondary = secondary
    if hub_api == _HUB_API:
        return False
    identity.hub_api = _HUB_API
    if _opened(device, record):
        identity.hub_api = hub_api
        return False
    # Was it the version, or is an outage over?
    device.session.close()
    identity.hub_api = hub_api
    e = _opened(device, record)
    if not e:
        return True
    identity.hub_api = _HUB_API
    if _opened(device, record):
        return False
    if e.code in _REFUSED:
        note(identity, hub_api=_HUB_API)
    return True


def well(device):
    """Connected again. What the Hub refused while it takes another identity is never tried again."""
    pending = device.trouble and device.trouble.get("pending")
    if pending and pending.sequence > device.session.record.sequence:
        from .store import refuse

        try:
            refuse(pending)
        except AzureError as e:  # not written: it is tried first the next time, too
            device.identity.log("error", str(e))
    device.trouble = None
    if "refused" in device.identity.notes:
        note(device.identity, refused=None)


def dps(device, e, args):
    """DPS refuses, or is out of reach: an Assignment if another way works (args: those of register()). Raises what the
    caller is to wait out."""
    from .dps import register

    identity = device.identity
    first = secondary, dps_api = identity.secondary, identity.dps_api
    ways = []
    if e.code == "tls-date" and _clock_moved(device):
        ways.append(first)
    if (e.code in _REFUSED or str(e.code)[:3] == "401") and _two_keys(identity):
        ways.append((not secondary, dps_api))
    if _about_version(e):
        ways += [(secondary, other) for other in _DPS_APIS if other != dps_api]
    for way in ways:
        identity.log("error", str(e))
        forget("faults")  # TLS needs its room
        identity.secondary, identity.dps_api = way
        try:
            assignment = register(*args)
        except AzureError as again:
            if e.code != again.code:
                e = again
            continue
        if way != first:
            note(identity, secondary=way[0], dps_api=way[1])
        return assignment
    identity.secondary, identity.dps_api = first
    if e.retry_after:
        device.floor = due(e.retry_after * 1000), e.code
    raise e


def _about_version(e):
    # Whether DPS may have refused the API version.
    return e.code in (404, 405, "connack-5") or e.code in (400004, 400012) and "version" in str(e.text).lower()


def rest(device):
    """Raise AzureError while DPS wants to be left alone."""
    until, code = device.floor
    if left(until) > 0:
        raise AzureError(code, "dps.register", "", left(until) // 1000 + 1)
    device.floor = None


def certificate(device, e, chain, args):
    """x509.pick() has failed on a chain: its result if another form is read, or the clock was wrong. Else raises."""
    from .x509 import pick

    if e.code == "cert-form":
        try:
            chain = plain(chain)
            return pick(chain, *args)
        except AzureError as other:
            e = other
        except (ValueError, TypeError):
            pass
    if e.code == "cert-date":
        if _clock_moved(device):
            return pick(chain, *args)
        left = e.end - clock.now()
        if left > 0:  # a renewal that ends before what it shall replace: another will not when less than that is left
            device.renew_from = args[2] - left
    raise e


def plain(chain):
    """Certificates as base64 of DER or of PEM, or as PEM, with or without line ends -> a list of base64 of DER."""
    found = []
    for text in [chain] if isinstance(chain, str) else chain:
        if not isinstance(text, str):
            text = str(text, "utf-8")
        if "-----" not in text:
            text = "".join(text.split())
            decoded = a2b_base64(text)
            if b"-----BEGIN" in decoded:
                text = str(decoded, "utf-8")
        for part in text.split("-----BEGIN CERTIFICATE-----")[1:] or [text]:
            found.append("".join(part.split("-----")[0].split()))
    return found
