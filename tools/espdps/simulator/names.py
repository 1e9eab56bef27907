"""What an ID may be, at DPS and at a hub, and which API versions there are.

Sources: Microsoft's documentation (D) and SDKs.
"""

from __future__ import annotations

import re

# Of registrations, enrollments and what else DPS names. Lenient on purpose: the documentation allows a dash at the end,
# the specification no special character at either end. They are the same in any case (D).
REGISTRATION_ID = re.compile(r"[A-Za-z0-9\-._:]{1,128}")

# Of a device at a hub, where case counts (D: iot-hub-devguide-identity-registry). The documentation of earlier years
# allows "+" and "#" too, today's does not; hubs have devices of both.
DEVICE_ID = re.compile(r"[A-Za-z0-9\-.+%_#*?!(),:=@$']{1,128}")

# Of the data plane and the service API of DPS. 2018-11-01: Adafruit's library. 2019-03-31: Microsoft's device SDKs.
# 2021-10-01: the service SDKs. 2021-11-01-preview: issued certificates in their first form. The last two: REST
# specification. Later previews (2026-11-02-preview, 2026-11-15-preview) are for a test to add.
DPS_API: tuple[str, ...] = (
    "2018-11-01",
    "2019-03-31",
    "2021-06-01",
    "2021-10-01",
    "2021-11-01-preview",
    "2025-07-01-preview",
    "2026-11-01",
)

# Of a hub. 2016-11-14: Adafruit's library. 2019-10-01: the device SDK for Python. 2020-09-30: the SDKs for C.
# 2021-04-12: documentation, the SDKs for Node. 2025-08-01-preview: renewal in the SDK for C. 2026-11-01-preview: az.
HUB_API: tuple[str, ...] = (
    "2016-11-14",
    "2018-06-30",
    "2019-10-01",
    "2020-03-13",
    "2020-09-30",
    "2021-04-12",
    "2025-08-01-preview",
    "2026-11-01-preview",
)
