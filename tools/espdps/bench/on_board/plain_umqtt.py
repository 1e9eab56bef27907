# The same registration and telemetry as device_life, by the frozen umqtt.simple and its ssl alone, as examples on the
# web do it, with esp-dps's functions for topics, bodies and tokens. Nothing is stored, and no wait has a deadline.
import gc
import json
import ssl
import sys
from time import sleep, ticks_diff, ticks_ms

from umqtt.simple import MQTTClient
from uos import getenv

sys.path.insert(0, getenv("BENCH_LIBRARY"))
from aziot import dps
from aziot.identity import Identity

answers = []


def trusting(cadata):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=cadata)
    return context


def heard(topic, body):
    answers.append((dps.parse_topic(topic), body))


def register(identity, context):
    name = identity.registration_id
    user = dps.username(identity.id_scope, name, identity.dps_api)
    client = MQTTClient(name, identity.dps_host, identity.port, user, identity.password(), 60, ssl=context)
    client.set_callback(heard)
    client.connect()
    client.subscribe(b"$dps/registrations/res/#")
    client.publish(dps.register_topic(1), dps.request(name, identity.csr()))
    while True:
        client.wait_msg()
        (status, _, retry_after), body = answers.pop()
        outcome = dps.parse_answer(status, body, retry_after)
        if isinstance(outcome, dps.Assignment):
            client.disconnect()
            return outcome
        sleep(dps.wait_time(0, retry_after))
        client.publish(dps.status_topic(2, outcome), b"")


def main():
    root = getenv("BENCH_UNIT")
    identity = Identity(root)
    start = ticks_ms()
    with open(root + "roots.pem", "rb") as f:
        roots = f.read()
    assignment = register(identity, trusting(roots))
    print("%d dps.assigned 0 " % ticks_diff(ticks_ms(), start))
    hub, name = assignment.assigned_hub, assignment.device_id
    context = trusting(roots)
    if assignment.issued_certificate_chain:
        form = "-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n"
        pem = "".join([form % str(text, "utf-8") for text in assignment.issued_certificate_chain])
        with open(root + "device.key", "rb") as f:
            context._context.load_cert_chain(pem.encode(), f.read())
    token = "" if assignment.issued_certificate_chain else identity.password(hub, name)
    user = "%s/%s/?api-version=2021-04-12" % (hub, name)
    client = MQTTClient(name, hub, identity.port, user, token, 60, ssl=context)
    client.connect()
    for n in range(int(getenv("BENCH_MESSAGES"))):
        client.publish("devices/%s/messages/events/" % name, json.dumps({"temperature": 21.5}), False, 1)
        if not n:
            print("%d hub.sent 0 " % ticks_diff(ticks_ms(), start))
    client.disconnect()


gc.collect()
main()
