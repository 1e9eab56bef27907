"""Error codes that are numbers, of DPS and IoT Hub: their protocols, REST specification and SDKs. Only texts."""

from __future__ import annotations

from espdps.explain.entry import ENROLLMENT, KEY_AGAIN, RETRY, Table, service

NUMBERS: Table = {
    # numbers of DPS
    ("400004", ""): service(
        "The service does not accept a value of the request. The code has three common meanings.",
        (
            "Invalid registration ID: a character is not allowed, or it differs from that of the connection or the CSR",
            "Unsupported API version: dps_api or hub_api in device.json is unknown to the service, or was withdrawn",
            "A Device Registry Namespace is required: DPS has not yet taken over its link to the namespace",
        ),
        "Read the message. Registration ID: use letters, digits and - . _ : with a letter or digit at both ends, and "
        "make the device folder again. API version: correct or remove dps_api and hub_api in device.json, then flash. "
        "Namespace: wait some minutes, then change a tag of the DPS instance; docs/azure-setup.md has the command.",
    ),
    ("400012", ""): service(
        "DPS cannot read the request.",
        (
            "the CSR is PEM, not base64 of DER",
            "dps_api is a version that does not know a CSR, or that the service does not know",
            "the payload is not JSON",
        ),
        "Make the device folder with esp-dps new, and check dps_api in device.json.",
    ),
    ("400207", ""): service(
        "The custom allocation failed.",
        ("the function behind the enrollment's webhook failed or answered with an unknown hub",),
        "Look into the function's log.",
    ),
    ("400208", ""): service(
        "DPS has no IoT Hub to assign.",
        ("no hub is linked to the DPS instance, or the enrollment names none of them",),
        "Link a hub to the DPS instance and allow it in the enrollment.",
    ),
    ("400209", ""): service(
        "DPS itself was not let in by the hub or by the allocation webhook.",
        ("the linked hub's policy key was changed", "the webhook asks for a key"),
        "Link the hub again with its current key; check the webhook's address.",
    ),
    ("401000", ""): service(
        "DPS does not accept the token's signature.",
        (
            "wrong device key: derived from another group's key, or from another registration id",
            "the secret was cut off when it was copied",
            "the enrollment's keys were changed",
        ),
        KEY_AGAIN,
    ),
    ("401002", ""): service(
        "DPS does not accept the device's credential.",
        (
            "no enrollment for this registration id or key",
            "the certificate is not valid, or its signer is not known to the enrollment",
        ),
        ENROLLMENT,
    ),
    ("404201", ""): service(
        "DPS knows no enrollment for this device.",
        ("no enrollment in this DPS instance fits", "wrong id scope"),
        ENROLLMENT,
    ),
    ("404202", ""): service(
        "DPS knows no such registration.",
        ("the device never registered, or its registration was deleted",),
        "Let the device register again. " + ENROLLMENT,
    ),
    ("404203", ""): service(
        "DPS does not know the operation the board asks about.",
        ("the operation is too old", "the registration was deleted meanwhile"),
        "Restart the board; it registers anew.",
    ),
    ("409203", ""): service(
        "The record at DPS was changed by someone else meanwhile.",
        ("two programs edit the same enrollment",),
        "Read it again, then repeat the change.",
    ),
    ("429001", ""): service(
        "DPS is throttling.", ("more than 1,000 registrations a minute, or too many polls",), RETRY
    ),
    # numbers of IoT Hub, when a certificate is renewed there
    ("400006", ""): service(
        "IoT Hub cannot read the renewal request.",
        ("a field it does not know, or a CSR that is not base64 of DER",),
        "Check hub_api in device.json; make the device folder anew with its CSR.",
    ),
    ("400037", ""): service(
        "IoT Hub could not verify the CSR.",
        ("device.csr is damaged or has another common name than the device id",),
        "Make the device folder anew (esp-dps new … --force) and flash it.",
    ),
    ("400040", ""): service(
        "IoT Hub could not verify the CSR of a renewal.",
        ("the CSR is damaged, or its signature is not by its own key", "the policy does not allow the type of its key"),
        "No action needed if it happens once: the board renews at DPS instead. Else make the device folder again "
        "(esp-dps new … --force) and flash it.",
    ),
    ("403000", ""): service(
        "The service does not permit this operation.",
        (
            "the roles of DPS, IoT Hub and the Device Registry namespace were assigned a short time ago",
            "a role is missing",
            "the namespace is in the state Failed",
        ),
        "Wait some minutes: the board retries automatically. If the error stays, check the roles and the state of the "
        "namespace; docs/azure-setup.md lists both.",
    ),
    ("403001", ""): service(
        "The IoT hub is suspended.",
        ("the subscription is disabled, or has reached its spending limit",),
        "Check the subscription and the hub in the Azure portal. The board retries automatically.",
    ),
    ("403002", ""): service(
        "The IoT hub has used up its messages of the day.",
        ("a free hub (8,000 messages a day), or more boards or messages than the units of the hub allow",),
        "Wait for 0:00 UTC, send less often, or add units to the hub.",
    ),
    ("403010", ""): service(
        "The hub's tier does not issue certificates.",
        ("a basic or free hub",),
        "Use a standard hub, or leave renewal to DPS.",
    ),
    ("404001", ""): service(
        "IoT Hub does not know the device.",
        ("it was deleted at the hub",),
        "The board registers at DPS again by itself; if that does not help, see the enrollment's reprovision policy.",
    ),
    ("404103", ""): service(
        "The device is not online, so IoT Hub could not call its method.",
        ("the board sleeps, is off or has no network", "the application has no handler for methods"),
        "Check that the board is connected: the connection state in the portal, or esp-dps hub monitor. Then call "
        "again, with a longer time to connect.",
    ),
    ("409004", ""): service(
        "A renewal is already under way.", ("the last request is still open, for up to 12 hours",), RETRY
    ),
    ("409005", ""): service(
        "A renewal is already pending.", ("the last request is still open, for up to 12 hours",), RETRY
    ),
    ("412001", ""): service(
        "IoT Hub refused the renewal because its condition does not hold.",
        ("`replace` names a request that is not the open one",),
        "Ask again with the open request, or replace any.",
    ),
    ("429002", ""): service("IoT Hub is throttling.", ("too many renewals at once",), RETRY),
    ("500001", ""): service("IoT Hub had an internal error.", ("a fault at the service",), RETRY),
    ("503001", ""): service("IoT Hub is not available now.", ("maintenance or overload",), RETRY),
    # classes: what stands for every number that begins with them
    ("400", ""): service(
        "The service does not take the request.",
        ("a setting in device.json the service does not know", "a message in a form of another api-version"),
        "Read the service's message above; check device.json.",
    ),
    ("401", ""): service("The service does not accept the credential.", ("a wrong key, token or clock",), KEY_AGAIN),
    ("403", ""): service(
        "The service does not allow this.", ("the tier or a policy excludes it",), "Read the service's message above."
    ),
    ("404", ""): service(
        "The service does not know what was asked for.",
        ("wrong ID scope or ID", "dps_api or hub_api in device.json is a version that the service does not know"),
        ENROLLMENT + " Remove dps_api and hub_api from device.json unless you need them.",
    ),
    ("405", ""): service(
        "The service does not know this request.",
        ("dps_api or hub_api in device.json is a version that the service does not know, or that was withdrawn",),
        "Correct or remove dps_api and hub_api in device.json, then flash.",
    ),
    ("409", ""): service("The request conflicts with another.", ("the same thing is under way twice",), RETRY),
    ("412", ""): service(
        "A condition of the request does not hold.", ("the record was changed meanwhile",), "Read it again and repeat."
    ),
    ("415", ""): service(
        "The service does not take this form of message.", ("a wrong api-version",), "Check dps_api in device.json."
    ),
    ("429", ""): service("The service is throttling.", ("too many requests at once",), RETRY),
    ("500", ""): service("The service had an internal error.", ("a fault at the service",), RETRY),
    ("503", ""): service("The service is not available now.", ("maintenance or overload",), RETRY),
}  # fmt: skip
