"""Error codes that are words: what the board itself finds, and what a service says in words. Only texts."""

from __future__ import annotations

from espdps.explain.entry import ENROLLMENT, RETRY, Table, own, service

_HUB_CLOSED = own(
    "IoT Hub closed the connection.",
    (
        "another device is connected with the same device id",
        "the device was disabled or deleted at the hub",
        "a message was too long or went to an unknown topic",
    ),
    "See that no second board was flashed with this device folder, and look the device up at the hub.",
)

FIRMWARE = own(
    "The firmware itself failed, or MicroPython did not give it what it needs: this is the kind of the exception.",
    (
        "a MicroPython without umqtt.simple, or one older than the firmware needs",
        "a fault of the firmware; the lines above show where",
    ),
    "Check the release: esp-dps doctor --port PORT. If it is new enough, report the lines above as a fault of esp-dps.",
)

WORDS: Table = {
    # what the board itself finds
    ("config", ""): own(
        "A file with the device's settings is missing or wrong.",
        ("the board was never flashed, or the flashing was cut short", "device.json or board.json was edited by hand"),
        "Flash the device again: esp-dps flash DEVICE --port PORT.",
    ),
    ("key", ""): own(
        "The device key or the private key cannot be used.",
        ("the key in secrets.json is not base64, or was cut off when it was copied", "device.key is damaged"),
        "Make the device folder anew (esp-dps new … --force) and flash it.",
    ),
    ("csr", ""): own(
        "device.csr cannot be used.",
        ("it is PEM instead of DER", "it is damaged"),
        "Make the device folder anew (esp-dps new … --force) and flash it.",
    ),
    ("store", ""): own(
        "The identity could not be written to flash or read from it.",
        (
            "the filesystem is full",
            "the filesystem is damaged",
            "a CIRCUITPY drive that is the PC's just now, as after a reset with the button held",
        ),
        "A drive: reset the board without the button. Else remove files that are not needed; if that does not help, "
        "erase the board's filesystem and flash it again.",
    ),
    ("platform", ""): FIRMWARE,
    ("network", ""): own(
        "The board did not get onto the network.",
        (
            "wrong network name or password: the text of the error names a Wi-Fi status and what it means",
            "the access point is 5 GHz only, out of reach, or has WPA3 only",
            "no address from DHCP",
        ),
        "Check name and password (esp-dps new … --wifi-ssid --force, then flash) and that the network has 2.4 GHz.",
    ),
    ("clock", ""): own(
        "The clock is not set, so neither certificates nor tokens can be checked.",
        ("no time server answered yet", "the time that came back was out of all reason"),
        "Open UDP port 123 to the internet, or name a time server of your own network under ntp in device.json.",
    ),
    ("clock", "pc"): own(
        "This PC's clock is not set, so neither certificates nor tokens can be checked.",
        ("it has just started, or its battery is empty",),
        "Set it, by a time server if there is one, and try again: nothing here does so.",
    ),
    ("ntp", ""): own(
        "No time server answered.",
        ("UDP port 123 is blocked", "no way to the internet", "the servers in device.json do not exist"),
        "Open UDP port 123, or name a time server of your own network under ntp in device.json.",
    ),
    ("dns", ""): own(
        "A host name could not be resolved.",
        ("no way to the internet or no name server", "a typing error in dps_host of device.json"),
        "Check the network's name server and the host name in device.json.",
    ),
    ("tcp", ""): own(
        "No TCP connection to the service.",
        ("a firewall blocks the service's port", "the service or the simulator is not running at that address"),
        "Try that host from a PC in the same network, at port in device.json, which is 8883 at Azure.",
    ),
    ("tls-root", ""): own(
        "The server's certificate does not lead to a root that this board trusts, so the board refuses to talk.",
        (
            "roots.pem belongs to another service (the simulator instead of Azure, or the other way round)",
            "something in the network opens TLS connections",
        ),
        "Make the device folder anew with the right --roots, or without for Azure. Never turn the check off.",
    ),
    ("tls-name", ""): own(
        "The server's certificate is for another host name, so the board refuses to talk.",
        ("dps_host is an alias or an address, not the service's name", "something in the network answers in its place"),
        "Use the service's own host name in device.json.",
    ),
    ("tls-date", ""): own(
        "The server's certificate is not valid at the board's time.",
        ("the board's clock is wrong", "the server's certificate has run out"),
        "Check the time the board shows at the step clock; after that the server's certificate.",
    ),
    ("tls-alert", ""): own(
        "The server broke off the TLS handshake.",
        ("it does not accept the board's certificate", "it does not speak TLS 1.2 with a cipher this board has"),
        "If it is the hub, let the board register anew; otherwise look into the server's log.",
    ),
    ("tls", ""): own(
        "The TLS handshake failed.",
        ("the connection was disturbed", "that port does not speak TLS"),
        "Check host and port in device.json; try again.",
    ),
    ("memory", ""): own(
        "The board ran out of memory.",
        ("a second TLS connection is open", "the application holds large objects", "the heap is fragmented"),
        "Keep one TLS connection at a time, free memory before connecting, use compiled files (esp-dps flash does).",
    ),
    ("timeout", ""): own(
        "The other side did not answer in time.",
        ("a bad radio link", "a firewall that swallows packets", "the service is slow"),
        RETRY,
    ),
    ("closed", ""): own(
        "The other side closed the connection.",
        ("the service restarted or the network dropped the connection", "the service did not like a message"),
        RETRY,
    ),
    ("timeout", "hub.renew"): own(
        "IoT Hub did not answer the request for a new certificate.",
        ("the hub has no credential policy or is of a kind that issues none", "a bad radio link"),
        "Nothing to change here: the board renews at DPS instead.",
    ),
    ("closed", "hub.poll"): _HUB_CLOSED,
    ("closed", "hub.send"): _HUB_CLOSED,
    ("protocol", ""): own(
        "The other side sent something that is not in the protocol.",
        ("that port does not speak MQTT 3.1.1", "dps_api or hub_api in device.json is a version with other messages"),
        "Check host, port and versions in device.json; if they are right, report it with the line above.",
    ),
    ("suback", ""): service(
        "The service refused a subscription.",
        ("the device has no right to that topic", "more than 5 subscriptions"),
        "Subscribe to the documented topics only.",
    ),
    ("too-big", ""): own(
        "The board's heap has no room for an answer of the service.",
        ("a device twin that is larger than the free heap", "an answer of DPS of more than 16 KB"),
        "Keep the device twin small. app.py can catch this error of session.twin(): the session goes on.",
    ),
    ("message", ""): own(
        "The application's message is one that IoT Hub never takes, so it was not sent.",
        (
            "body and properties have more than 256 KB",
            "a QoS other than 0 or 1",
            "a value that JSON has no form for: nan, infinity, bytes, a set, an object, a tuple as a key",
        ),
        "Change what app.py sends.",
    ),
    ("timeout", "hub.twin"): own(
        "IoT Hub did not answer a question about the device twin.",
        ("a hub of the basic tier, which has no twins", "a bad radio link"),
        RETRY,
    ),
    ("cert-key", ""): own(
        "The issued certificate is for another key, so it was not taken over.",
        ("device.key and device.csr on the board are not a pair", "the service mixed devices up"),
        "Flash the device again, both files come from one folder; if it stays, report it to the service.",
    ),
    ("cert-name", ""): own(
        "The issued certificate is for another name, so it was not taken over.",
        ("device.csr was made for another registration id",),
        "Make the device folder anew (esp-dps new … --force) and flash it.",
    ),
    ("cert-date", ""): own(
        "The issued certificate is not valid at the board's time, so it was not taken over.",
        ("the board's clock is wrong", "the certificate's life has ended or not begun"),
        "Check the time the board shows at the step clock, and the credential policy's validity.",
    ),
    ("cert-form", ""): own(
        "The issued certificate chain cannot be read.",
        ("the answer was damaged", "dps_api is a version with another form of the chain"),
        "Try again; check dps_api in device.json.",
    ),
    ("profile", ""): own(
        "The hub that DPS assigned wants to be spoken to in a way that this firmware does not know.",
        ("the hub has a connection profile other than classic, which is MQTT 3.1.1",),
        "Assign a hub with the classic profile in the enrollment.",
    ),
    # what a service says in words
    ("connack-1", ""): service(
        "The service does not speak this version of MQTT.",
        ("that port belongs to something else",),
        "Check host and port in device.json.",
    ),
    ("connack-2", ""): service(
        "The service does not take this client id.",
        ("the registration id has a character the service does not allow",),
        "Take another registration id.",
    ),
    ("connack-3", ""): service("The service is not available now.", ("maintenance or overload",), RETRY),
    ("connack-4", ""): service(
        "The service cannot read the user name or password.",
        ("dps_api or hub_api in device.json is not a version the service knows", "a wrong id scope"),
        "Check id_scope, dps_api and hub_api in device.json.",
    ),
    ("connack-5", ""): service(
        "The service does not accept this device.",
        (
            "the board's clock is wrong, so its token has run out before it was made",
            "the registration id is not that of the key or certificate",
            "the device is unknown or disabled",
        ),
        "Check the time at the step clock, then id scope and registration id. " + ENROLLMENT,
    ),
    ("connack-5", "dps.connect"): service(
        "DPS does not accept this device's token.",
        (
            "the board's clock is wrong, so its token has run out before it was made",
            "wrong id scope",
            "registration id and user name do not belong together",
        ),
        "Check the time at the step clock, then id_scope in device.json. A merely wrong key shows as 401000 instead.",
    ),
    ("connack-5", "hub.connect"): service(
        "IoT Hub does not accept this device's certificate or token.",
        (
            "the device is disabled or deleted at the hub",
            "the certificate has run out, or the hub does not know the authority that issued it",
            "the board's clock is wrong",
        ),
        "Look the device up at the hub. The board goes back to DPS with its onboarding credential by itself.",
    ),
    ("failed", ""): service(
        "DPS could not assign the device.",
        ("no linked hub fits the enrollment", "a custom allocation function failed"),
        "Read the service's message above, then the enrollment's allocation policy and linked hubs.",
    ),
    ("disabled", ""): service(
        "The enrollment is disabled.",
        ("someone disabled the enrollment or its group",),
        "Enable the enrollment at the DPS instance; the board tries again by itself.",
    ),
    ("no-certificate", ""): service(
        "DPS assigned the device but issued no certificate.",
        (
            "the enrollment names no policy (namespaceName, certificateAuthorityName, certificatePolicyName)",
            "the enrollment has the policy of an earlier API (credentialPolicyName), which this one does not use",
            "no CSR was sent because the device folder has none",
        ),
        "Look at the enrollment: esp-dps enroll show. Name the policy: esp-dps enroll create … --credential-policy "
        "NAMESPACE/AUTHORITY/POLICY. Or make the device folder with a CSR (without --no-csr).",
    ),
}  # fmt: skip
