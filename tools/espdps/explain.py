"""What an error code means, what usually causes it, and what to do: one table for monitor, flash and the documents.
Only texts and their look-up; nothing here may decide what the firmware or a tool does next."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Explanation:
    """`causes` come likeliest first. `refused` is true when the service itself said no."""

    meaning: str
    causes: tuple[str, ...]
    remedy: str
    refused: bool = False


def _own(meaning: str, causes: tuple[str, ...], remedy: str) -> Explanation:
    return Explanation(meaning, causes, remedy)


def _service(meaning: str, causes: tuple[str, ...], remedy: str) -> Explanation:
    return Explanation(meaning, causes, remedy, refused=True)


_RETRY = "Nothing to change here: the board tries again by itself, later and later."
_KEY_AGAIN = (
    "Make the device folder anew with the right key (esp-dps new … --force) and flash it. Check that the registration "
    "id is spelled as at the service and that the id scope is that of the DPS instance."
)
_ENROLLMENT = "Look at the enrollment in the DPS instance with this id scope: is it there, enabled, of the right kind?"

_HUB_CLOSED = _own(
    "IoT Hub closed the connection.",
    (
        "another device is connected with the same device id",
        "the device was disabled or deleted at the hub",
        "a message was too long or went to an unknown topic",
    ),
    "See that no second board was flashed with this device folder, and look the device up at the hub.",
)

_APP = _own(
    "The application on the board failed: this is the kind of its exception.",
    ("an error in app.py, whose traceback stands above if it ended the application",),
    "Correct app.py and flash it: esp-dps flash DEVICE --port PORT --app-only. The board goes on by itself meanwhile.",
)

_FIRMWARE = _own(
    "The firmware itself failed, or MicroPython did not give it what it needs: this is the kind of the exception.",
    (
        "a MicroPython without umqtt.simple, or one older than the firmware needs",
        "a fault of the firmware; the lines above show where",
    ),
    "Check the release: esp-dps doctor --port PORT. If it is new enough, report the lines above as a fault of esp-dps.",
)

# (code, step): step "" is any. Numbers are the services' own: protocols and REST specification of DPS and IoT Hub.
_TABLE: dict[tuple[str, str], Explanation] = {
    # what the board itself finds
    ("config", ""): _own(
        "A file with the device's settings is missing or wrong.",
        ("the board was never flashed, or the flashing was cut short", "device.json or board.json was edited by hand"),
        "Flash the device again: esp-dps flash DEVICE --port PORT.",
    ),
    ("key", ""): _own(
        "The device key or the private key cannot be used.",
        ("the key in secrets.json is not base64, or was cut off when it was copied", "device.key is damaged"),
        "Make the device folder anew (esp-dps new … --force) and flash it.",
    ),
    ("csr", ""): _own(
        "device.csr cannot be used.",
        ("it is PEM instead of DER", "it is damaged"),
        "Make the device folder anew (esp-dps new … --force) and flash it.",
    ),
    ("store", ""): _own(
        "The identity could not be written to flash or read from it.",
        (
            "the filesystem is full",
            "the filesystem is damaged",
            "a CIRCUITPY drive that is the PC's just now, as after a reset with the button held",
        ),
        "A drive: reset the board without the button. Else remove files that are not needed; if that does not help, "
        "erase the board's filesystem and flash it again.",
    ),
    ("platform", ""): _FIRMWARE,
    ("network", ""): _own(
        "The board did not get onto the network.",
        (
            "wrong network name or password: the text of the error names a Wi-Fi status and what it means",
            "the access point is 5 GHz only, out of reach, or has WPA3 only",
            "no address from DHCP",
        ),
        "Check name and password (esp-dps new … --wifi-ssid --force, then flash) and that the network has 2.4 GHz.",
    ),
    ("clock", ""): _own(
        "The clock is not set, so neither certificates nor tokens can be checked.",
        ("no time server answered yet", "the time that came back was out of all reason"),
        "Open UDP port 123 to the internet, or name a time server of your own network under ntp in device.json.",
    ),
    ("clock", "pc"): _own(
        "This PC's clock is not set, so neither certificates nor tokens can be checked.",
        ("it has just started, or its battery is empty",),
        "Set it, by a time server if there is one, and try again: nothing here does so.",
    ),
    ("ntp", ""): _own(
        "No time server answered.",
        ("UDP port 123 is blocked", "no way to the internet", "the servers in device.json do not exist"),
        "Open UDP port 123, or name a time server of your own network under ntp in device.json.",
    ),
    ("dns", ""): _own(
        "A host name could not be resolved.",
        ("no way to the internet or no name server", "a typing error in dps_host of device.json"),
        "Check the network's name server and the host name in device.json.",
    ),
    ("tcp", ""): _own(
        "No TCP connection to the service.",
        ("a firewall blocks the service's port", "the service or the simulator is not running at that address"),
        "Try that host from a PC in the same network, at port in device.json, which is 8883 at Azure.",
    ),
    ("tls-root", ""): _own(
        "The server's certificate does not lead to a root that this board trusts, so the board refuses to talk.",
        (
            "roots.pem belongs to another service (the simulator instead of Azure, or the other way round)",
            "something in the network opens TLS connections",
        ),
        "Make the device folder anew with the right --roots, or without for Azure. Never turn the check off.",
    ),
    ("tls-name", ""): _own(
        "The server's certificate is for another host name, so the board refuses to talk.",
        ("dps_host is an alias or an address, not the service's name", "something in the network answers in its place"),
        "Use the service's own host name in device.json.",
    ),
    ("tls-date", ""): _own(
        "The server's certificate is not valid at the board's time.",
        ("the board's clock is wrong", "the server's certificate has run out"),
        "Check the time the board shows at the step clock; after that the server's certificate.",
    ),
    ("tls-alert", ""): _own(
        "The server broke off the TLS handshake.",
        ("it does not accept the board's certificate", "it does not speak TLS 1.2 with a cipher this board has"),
        "If it is the hub, let the board register anew; otherwise look into the server's log.",
    ),
    ("tls", ""): _own(
        "The TLS handshake failed.",
        ("the connection was disturbed", "that port does not speak TLS"),
        "Check host and port in device.json; try again.",
    ),
    ("memory", ""): _own(
        "The board ran out of memory.",
        ("a second TLS connection is open", "the application holds large objects", "the heap is fragmented"),
        "Keep one TLS connection at a time, free memory before connecting, use compiled files (esp-dps flash does).",
    ),
    ("timeout", ""): _own(
        "The other side did not answer in time.",
        ("a bad radio link", "a firewall that swallows packets", "the service is slow"),
        _RETRY,
    ),
    ("closed", ""): _own(
        "The other side closed the connection.",
        ("the service restarted or the network dropped the connection", "the service did not like a message"),
        _RETRY,
    ),
    ("timeout", "hub.renew"): _own(
        "IoT Hub did not answer the request for a new certificate.",
        ("the hub has no credential policy or is of a kind that issues none", "a bad radio link"),
        "Nothing to change here: the board renews at DPS instead.",
    ),
    ("closed", "hub.poll"): _HUB_CLOSED,
    ("closed", "hub.send"): _HUB_CLOSED,
    ("protocol", ""): _own(
        "The other side sent something that is not in the protocol.",
        ("that port does not speak MQTT 3.1.1", "dps_api or hub_api in device.json is a version with other messages"),
        "Check host, port and versions in device.json; if they are right, report it with the line above.",
    ),
    ("suback", ""): _service(
        "The service refused a subscription.",
        ("the device has no right to that topic", "more than 5 subscriptions"),
        "Subscribe to the documented topics only.",
    ),
    ("too-big", ""): _own(
        "A message of the service is larger than the board takes.",
        ("a message to the device or a twin of more than 16 KB",),
        "Send the device less at a time, and keep its twin small.",
    ),
    ("message", ""): _own(
        "The application's message is one that IoT Hub never takes, so it was not sent.",
        ("body and properties have more than 256 KB", "a QoS other than 0 or 1"),
        "Change what app.py sends.",
    ),
    ("timeout", "hub.twin"): _own(
        "IoT Hub did not answer a question about the device twin.",
        ("a hub of the basic tier, which has no twins", "a bad radio link"),
        _RETRY,
    ),
    ("cert-key", ""): _own(
        "The issued certificate is for another key, so it was not taken over.",
        ("device.key and device.csr on the board are not a pair", "the service mixed devices up"),
        "Flash the device again, both files come from one folder; if it stays, report it to the service.",
    ),
    ("cert-name", ""): _own(
        "The issued certificate is for another name, so it was not taken over.",
        ("device.csr was made for another registration id",),
        "Make the device folder anew (esp-dps new … --force) and flash it.",
    ),
    ("cert-date", ""): _own(
        "The issued certificate is not valid at the board's time, so it was not taken over.",
        ("the board's clock is wrong", "the certificate's life has ended or not begun"),
        "Check the time the board shows at the step clock, and the credential policy's validity.",
    ),
    ("cert-form", ""): _own(
        "The issued certificate chain cannot be read.",
        ("the answer was damaged", "dps_api is a version with another form of the chain"),
        "Try again; check dps_api in device.json.",
    ),
    ("profile", ""): _own(
        "The hub that DPS assigned wants to be spoken to in a way that this firmware does not know.",
        ("the hub has a connection profile other than classic, which is MQTT 3.1.1",),
        "Assign a hub with the classic profile in the enrollment.",
    ),
    # what a service says in words
    ("connack-1", ""): _service(
        "The service does not speak this version of MQTT.",
        ("that port belongs to something else",),
        "Check host and port in device.json.",
    ),
    ("connack-2", ""): _service(
        "The service does not take this client id.",
        ("the registration id has a character the service does not allow",),
        "Take another registration id.",
    ),
    ("connack-3", ""): _service("The service is not available now.", ("maintenance or overload",), _RETRY),
    ("connack-4", ""): _service(
        "The service cannot read the user name or password.",
        ("dps_api or hub_api in device.json is not a version the service knows", "a wrong id scope"),
        "Check id_scope, dps_api and hub_api in device.json.",
    ),
    ("connack-5", ""): _service(
        "The service does not accept this device.",
        (
            "the board's clock is wrong, so its token has run out before it was made",
            "the registration id is not that of the key or certificate",
            "the device is unknown or disabled",
        ),
        "Check the time at the step clock, then id scope and registration id. " + _ENROLLMENT,
    ),
    ("connack-5", "dps.connect"): _service(
        "DPS does not accept this device's token.",
        (
            "the board's clock is wrong, so its token has run out before it was made",
            "wrong id scope",
            "registration id and user name do not belong together",
        ),
        "Check the time at the step clock, then id_scope in device.json. A merely wrong key shows as 401000 instead.",
    ),
    ("connack-5", "hub.connect"): _service(
        "IoT Hub does not accept this device's certificate or token.",
        (
            "the device is disabled or deleted at the hub",
            "the certificate has run out, or the hub does not know the authority that issued it",
            "the board's clock is wrong",
        ),
        "Look the device up at the hub. The board goes back to DPS with its onboarding credential by itself.",
    ),
    ("failed", ""): _service(
        "DPS could not assign the device.",
        ("no linked hub fits the enrollment", "a custom allocation function failed"),
        "Read the service's message above, then the enrollment's allocation policy and linked hubs.",
    ),
    ("disabled", ""): _service(
        "The enrollment is disabled.",
        ("someone disabled the enrollment or its group",),
        "Enable the enrollment at the DPS instance; the board tries again by itself.",
    ),
    ("no-certificate", ""): _service(
        "DPS assigned the device but issued no certificate.",
        ("the enrollment has no credential policy", "no CSR was sent because the device folder has none"),
        "Set credentialPolicyName at the enrollment, or make the device folder with a CSR (without --no-csr).",
    ),
    # numbers of DPS
    ("400004", ""): _service(
        "DPS does not take the registration id.",
        ("a character it does not allow", "the id in the request is not that of the connection or the CSR"),
        "Take letters, digits and - . _ : with a letter or digit at both ends; make the device folder anew.",
    ),
    ("400012", ""): _service(
        "DPS cannot read the request.",
        ("the CSR is PEM, not base64 of DER", "dps_api is a version that knows no CSR", "a payload that is no JSON"),
        "Make the device folder with esp-dps new, and check dps_api in device.json.",
    ),
    ("400207", ""): _service(
        "The custom allocation failed.",
        ("the function behind the enrollment's webhook failed or answered with an unknown hub",),
        "Look into the function's log.",
    ),
    ("400208", ""): _service(
        "DPS has no IoT Hub to assign.",
        ("no hub is linked to the DPS instance, or the enrollment names none of them",),
        "Link a hub to the DPS instance and allow it in the enrollment.",
    ),
    ("400209", ""): _service(
        "DPS itself was not let in by the hub or by the allocation webhook.",
        ("the linked hub's policy key was changed", "the webhook asks for a key"),
        "Link the hub again with its current key; check the webhook's address.",
    ),
    ("401000", ""): _service(
        "DPS does not accept the token's signature.",
        (
            "wrong device key: derived from another group's key, or from another registration id",
            "the secret was cut off when it was copied",
            "the enrollment's keys were changed",
        ),
        _KEY_AGAIN,
    ),
    ("401002", ""): _service(
        "DPS does not accept the device's credential.",
        (
            "no enrollment for this registration id or key",
            "the certificate is not valid, or its signer is not known to the enrollment",
        ),
        _ENROLLMENT,
    ),
    ("404201", ""): _service(
        "DPS knows no enrollment for this device.",
        ("no enrollment in this DPS instance fits", "wrong id scope"),
        _ENROLLMENT,
    ),
    ("404202", ""): _service(
        "DPS knows no such registration.",
        ("the device never registered, or its registration was deleted",),
        "Let the device register again. " + _ENROLLMENT,
    ),
    ("404203", ""): _service(
        "DPS does not know the operation the board asks about.",
        ("the operation is too old", "the registration was deleted meanwhile"),
        "Restart the board; it registers anew.",
    ),
    ("409203", ""): _service(
        "The record at DPS was changed by someone else meanwhile.",
        ("two programs edit the same enrollment",),
        "Read it again, then repeat the change.",
    ),
    ("429001", ""): _service(
        "DPS is throttling.", ("more than 1,000 registrations a minute, or too many polls",), _RETRY
    ),
    # numbers of IoT Hub, when a certificate is renewed there
    ("400006", ""): _service(
        "IoT Hub cannot read the renewal request.",
        ("a field it does not know, or a CSR that is not base64 of DER",),
        "Check hub_api in device.json; make the device folder anew with its CSR.",
    ),
    ("400037", ""): _service(
        "IoT Hub could not verify the CSR.",
        ("device.csr is damaged or has another common name than the device id",),
        "Make the device folder anew (esp-dps new … --force) and flash it.",
    ),
    ("400040", ""): _service(
        "IoT Hub does not take the renewal request.",
        ("the hub or the device has no credential policy", "a request id it does not allow"),
        "Check that the hub is linked to a credential policy; the board can renew at DPS instead.",
    ),
    ("403010", ""): _service(
        "The hub's tier does not issue certificates.",
        ("a basic or free hub",),
        "Use a standard hub, or leave renewal to DPS.",
    ),
    ("404001", ""): _service(
        "IoT Hub does not know the device.",
        ("it was deleted at the hub",),
        "The board registers at DPS again by itself; if that does not help, see the enrollment's reprovision policy.",
    ),
    ("409004", ""): _service(
        "A renewal is already under way.", ("the last request is still open, for up to 12 hours",), _RETRY
    ),
    ("409005", ""): _service(
        "A renewal is already pending.", ("the last request is still open, for up to 12 hours",), _RETRY
    ),
    ("412001", ""): _service(
        "IoT Hub refused the renewal because its condition does not hold.",
        ("`replace` names a request that is not the open one",),
        "Ask again with the open request, or replace any.",
    ),
    ("429002", ""): _service("IoT Hub is throttling.", ("too many renewals at once",), _RETRY),
    ("500001", ""): _service("IoT Hub had an internal error.", ("a fault at the service",), _RETRY),
    ("503001", ""): _service("IoT Hub is not available now.", ("maintenance or overload",), _RETRY),
    # classes: what stands for every number that begins with them
    ("400", ""): _service(
        "The service does not take the request.",
        ("a setting in device.json the service does not know", "a message in a form of another api-version"),
        "Read the service's message above; check device.json.",
    ),
    ("401", ""): _service("The service does not accept the credential.", ("a wrong key, token or clock",), _KEY_AGAIN),
    ("403", ""): _service(
        "The service does not allow this.", ("the tier or a policy excludes it",), "Read the service's message above."
    ),
    ("404", ""): _service("The service does not know what was asked for.", ("wrong id scope or id",), _ENROLLMENT),
    ("405", ""): _service(
        "The service does not know this request.", ("a wrong api-version",), "Check dps_api and hub_api in device.json."
    ),
    ("409", ""): _service("The request conflicts with another.", ("the same thing is under way twice",), _RETRY),
    ("412", ""): _service(
        "A condition of the request does not hold.", ("the record was changed meanwhile",), "Read it again and repeat."
    ),
    ("415", ""): _service(
        "The service does not take this form of message.", ("a wrong api-version",), "Check dps_api in device.json."
    ),
    ("429", ""): _service("The service is throttling.", ("too many requests at once",), _RETRY),
    ("500", ""): _service("The service had an internal error.", ("a fault at the service",), _RETRY),
    ("503", ""): _service("The service is not available now.", ("maintenance or overload",), _RETRY),
}  # fmt: skip


def explain(code: str | int, step: str = "") -> Explanation:
    """What `code` means at `step`; both as the firmware's console and the service give them.

    A service number that is not in the table is explained by its class (its first three digits); anything else that is
    not there gets a plain answer rather than an error, since services grow codes.
    """
    if step == "app":
        return _APP
    if step == "firmware":
        return _FIRMWARE
    word = str(code)
    for key in ((word, step), (word, ""), (word[:3], "")):
        if key in _TABLE and (key[0] == word or _is_service_number(word)):
            return _TABLE[key]
    if _is_service_number(word):
        return _service(
            f"The service refused with {word}, a code not known here.",
            ("see the service's message",),
            "Read the message above; the tracking id helps Azure's support.",
        )
    return _own(f"{word!r} is a code not known here.", ("firmware newer than these tools",), "Update the tools.")


def codes() -> list[str]:
    """Every code of the table, in its order."""
    return list(dict.fromkeys(code for code, _ in _TABLE))


def _is_service_number(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) in (3, 6)


def markdown() -> str:
    """The table as the part of a page: a heading for each code, which is the symptom, with causes and what to do."""
    parts = []
    for (code, step), entry in _TABLE.items():
        title = f"`{code}`" + (f" at `{step}`" if step else "")
        said = f"The console says `error … {code} …`" if not step else f"The console says `error {step} {code} …`"
        causes = "\n".join(f"- {cause}" for cause in entry.causes)
        refused = " The service itself said no." if entry.refused else ""
        text = f"### {title}\n\n{said}: {entry.meaning}{refused}\n\n{causes}\n\nWhat to do: {entry.remedy}\n"
        parts.append(text)
    return "\n".join(parts)
