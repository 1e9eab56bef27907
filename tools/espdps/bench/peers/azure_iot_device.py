"""A registration and telemetry by Microsoft's azure-iot-device, unmodified; runs in the environment build/sdk.

Nothing of esp-dps may be used here, and no key may be printed. Reads its settings as JSON from stdin.
"""

import json
import os
import sys
import time

from azure.iot.device import IoTHubDeviceClient, Message, ProvisioningDeviceClient, ProxyOptions

settings = json.load(sys.stdin)
with open(settings["roots"]) as file:
    proxy = ProxyOptions("HTTP", "127.0.0.1", settings["tunnel"])
    options = {"server_verification_cert": file.read(), "proxy_options": proxy}
start = time.monotonic()


def say(step):
    print(f"{(time.monotonic() - start) * 1000:.0f} {step} 0 ", flush=True)


provisioning = ProvisioningDeviceClient.create_from_symmetric_key(
    settings["host"], settings["name"], settings["id_scope"], settings["key"], **options
)
state = provisioning.register().registration_state
say("dps.assigned")
client = IoTHubDeviceClient.create_from_symmetric_key(settings["key"], state.assigned_hub, state.device_id, **options)
client.connect()
for n in range(settings["messages"]):
    client.send_message(Message(json.dumps({"temperature": 21.5})))
    if not n:
        say("hub.sent")
client.shutdown()
sys.stdout.flush()
os._exit(0)  # how its threads end is not what is measured
