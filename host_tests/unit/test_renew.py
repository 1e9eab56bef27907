"""One renewal step by step: what is said to the Hub, and which way is taken, with the connection and DPS played."""

import json
import sys
from binascii import a2b_base64, b2a_base64

import vectors
from aziot import clock, renew
from aziot.errors import AzureError
from check import raises

NOW = 1800000000
CSR = a2b_base64(vectors.P384_CSR)
CERTIFICATES = [vectors.P384_LEAF, vectors.INTERMEDIATE]


class Mqtt:
    def __init__(self):
        self.said = []

    def subscribe(self, topic, qos=0):
        assert qos == 1  # as official SDKs do
        self.said.append((topic, None))

    def publish(self, topic, body, qos=0):
        assert qos == 1
        self.said.append((topic, json.loads(body)))


class Identity:
    hub_api = "2025-08-01-preview"
    timeout = 30
    renew = 66

    request = CSR

    def csr(self):
        return self.request


class Record:
    hub = "hub-1"
    device_id = "dev-1"

    def __init__(self, not_before, not_after):
        self.not_before = not_before
        self.not_after = not_after


class World:
    """A session whose certificate has a third of its life left, and its device; what comes of it is written down."""

    def __init__(self, **config):
        self.identity = Identity()
        for name, value in config.items():
            setattr(self.identity, name, value)
        self.identity.log = lambda step, text: self.lines.append(step + " " + text)
        self.lines = []
        self.kept = []
        self.keeps = None  # an error code, if the chain is not ours
        self.ways = []  # of device.connect(): at DPS or not
        self.works = True  # the new certificate
        self.warned = []
        self.now = NOW
        # This object is the device and the session at once.
        self.device = self
        self.renewal = None
        self.renew_from = 0
        self.took = 0  # seconds that connect() takes
        self.record = Record(NOW - 2000, NOW + 1000)
        self.mqtt = Mqtt()
        self.renew_at = NOW
        self.on_expiring = self.warned.append

    def __enter__(self):
        self.real, clock.now = clock.now, lambda: self.now
        return self

    def __exit__(self, *exc):
        clock.now = self.real

    def keep(self, hub, device_id, chain, csr, old=None):
        assert old is self.record
        if self.keeps:
            raise AzureError(self.keeps, "certificate")
        if not isinstance(chain, list):
            raise AzureError("cert-form", "certificate")  # as x509.pick()
        texts = [text if isinstance(text, str) else str(text, "utf-8") for text in chain]
        self.kept.append((hub, device_id, texts, csr))

    def connect(self, payload=None, renew=False):
        self.ways.append(renew)
        self.now += self.took
        self.mqtt = Mqtt()
        if self.works:
            self.record = Record(NOW, NOW + 3000)
        self.renew_at = NOW + 100

    def step(self):
        renew.step(self)
        return self.mqtt.said[-1] if self.mqtt.said else None

    def hear(self, status, body, rid=None):
        """The Hub answers, and the session goes on."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        rid = rid or (self.renewal and self.renewal.rid)
        renew.hear(self, ("$iothub/credentials/res/%d/?$rid=%s" % (status, rid)).encode(), body)
        if self.renew_at <= self.now:
            self.step()


def test_what_is_said_and_done_when_all_goes_well():
    with World() as world:
        topic, body = world.step()
        rid = world.renewal.rid
        assert world.mqtt.said[0] == (b"$iothub/credentials/res/#", None)
        assert topic == "$iothub/credentials/POST/issueCertificate/?$rid=" + rid
        assert 4 <= len(rid) <= 36 and not rid.strip("0123456789abcdef")
        assert body == {"id": "dev-1", "csr": b2a_base64(CSR).strip().decode()}
        assert world.renew_at == NOW + 30
        world.hear(202, {"correlationId": "x", "operationExpires": "2027-01-15T20:00:00Z"})
        # Twelve hours, but with a quarter of the certificate's life left for DPS
        assert world.renew_at == NOW + 750 and len(world.mqtt.said) == 2
        world.hear(200, {"correlationId": "x", "certificates": CERTIFICATES})
        assert world.kept == [("hub-1", "dev-1", CERTIFICATES, CSR)] and world.ways == [False]
        assert world.renewal is None and world.warned == []


def test_forms_of_the_answer():
    for body in (CERTIFICATES, {"certificates": CERTIFICATES}):
        with World() as world:
            world.step()
            world.hear(200, body)  # without a 202 before
            assert world.kept[0][2] == CERTIFICATES and world.ways == [False]


def test_a_promise_is_waited_for_as_long_as_it_holds():
    for text, end in (
        ("2027-01-15T20:00:00Z", 43200), ("2027-01-15T08:30:00.1234567Z", 1800), ("2027-01-15T08:30:00+00:00", 1800),
        ("2027-01-15T07:00:00Z", 600), ("soon", 600), ("", 600), (None, 600), (7, 600), ([], 600),
    ):  # fmt: skip
        with World() as world:
            world.record.not_after = NOW + 864000
            world.step()
            world.hear(202, {"operationExpires": text})
            assert world.renew_at == NOW + end, text


def test_an_older_api_renews_at_dps():
    with World(hub_api="2021-04-12") as world:
        world.step()
        assert world.ways == [True] and world.mqtt.said == [] and world.renewal is None


def test_a_board_that_has_lost_its_request_renews_at_dps():
    with World(request=None) as world:
        world.step()
        assert world.ways == [True] and world.mqtt.said == []


def test_a_promise_is_not_prolonged():
    with World() as world:
        world.step()
        world.hear(202, {})
        world.now += 599
        world.hear(202, {})
        assert world.renew_at == NOW + 600


def test_no_answer_leads_to_dps():
    with World() as world:
        world.step()
        world.now += 30
        world.step()
        assert world.ways == [True]
    with World() as world:  # promised, but never given
        world.step()
        world.hear(202, {})
        world.now += 600
        world.step()
        assert world.ways == [True]


def test_a_promise_outlives_the_connection():
    with World() as world:
        world.step()
        world.hear(202, {})
        rid = world.renewal.rid
        world.mqtt = Mqtt()
        world.now += 100
        world.step()
        assert world.mqtt.said == [(b"$iothub/credentials/res/#", None)] and world.renew_at == NOW + 600
        world.hear(200, {"certificates": CERTIFICATES}, rid)
        assert world.ways == [False] and world.kept


def test_a_connection_that_ends_by_the_question_leads_to_dps():
    with World() as world:
        world.step()
        world.mqtt = Mqtt()  # as after a reconnect
        world.step()
        assert world.ways == [True] and world.mqtt.said == []


def test_an_operation_from_before_a_restart_is_replaced_once():
    with World() as world:
        world.step()
        first = world.renewal.rid
        world.hear(409, {"errorCode": 409004, "message": "active"})
        topic, body = world.mqtt.said[-1]
        assert body["replace"] == "*" and topic.endswith(world.renewal.rid) and world.renewal.rid != first
        assert len([topic for topic, body in world.mqtt.said if body is None]) == 1
        world.hear(409, {"errorCode": 409005, "message": "pending"})
        assert world.ways == [True] and [line for line in world.lines if "409005 pending" in line]


def test_throttled_or_out_of_order_is_asked_again_at_the_hub():
    for status, code in ((429, 429002), (500, 500001), (503, 503001), (429, None), (503, None)):
        with World() as world:
            world.record.not_after = NOW + 864000  # ten days are left: five of them at the Hub
            world.step()
            waits = []
            while not world.ways:
                first = world.renewal.rid
                before = world.now
                world.hear(status, {"errorCode": code, "message": "later"} if code else b"null")
                if not world.ways:
                    waits.append(world.renew_at - before)
                    world.now = world.renew_at
                    world.step()
                    assert world.renewal.rid not in ("", first)
            for wait, middle in zip(waits, (8, 32, 128, 512, 2048, 3600, 3600)):
                assert middle * 3 // 4 <= wait <= middle * 5 // 4, waits
            assert world.ways == [True] and 432000 - 4500 <= world.now - NOW <= 432000 and len(set(waits[6:])) > 3


def test_retry_after_is_obeyed_within_the_time_that_is_left():
    slow = {"errorCode": 429002, "message": "slow down", "retryAfter": 77}
    with World() as world:
        world.step()
        for _ in range(6):  # in 500 s, half of what is left
            world.hear(429, slow)
            assert world.ways == [] and world.renew_at == world.now + 77
            # A connection that is lost meanwhile does not shorten it.
            world.mqtt = Mqtt()
            world.now += 70
            world.step()
            assert world.mqtt.said == [] and world.renew_at == world.now + 7
            world.now += 7
            world.step()
        world.hear(429, slow)
        assert world.ways == [True]
    with World() as world:  # too long for the life that is left
        world.step()
        world.hear(429, dict(slow, retryAfter=501))
        assert world.ways == [True]


def test_a_try_in_vain_leaves_telemetry_three_times_as_long():
    with World(hub_api="2021-04-12") as world:
        world.works = False
        world.took = 60
        world.step()
        assert world.renew_at == NOW + 60 + 180


def test_a_certificate_that_lives_too_short_is_not_asked_for_again_until_it_is_of_use():
    def short(*_):
        world.renew_from = NOW + 400
        raise AzureError("cert-date", "certificate")

    with World() as world:
        world.step()
        world.keep = short
        world.hear(200, CERTIFICATES)
        assert world.ways == [] and world.renew_at == NOW + 400 and world.renewal is None
        said = len(world.mqtt.said)
        world.now += 300
        world.renew_at = 1  # as after a reconnect
        world.step()
        assert world.renew_at == NOW + 400 and len(world.mqtt.said) == said


def test_refusals_lead_to_dps_with_the_hub_s_own_words():
    for status, code in ((400, 400037), (403, 403010), (404, 404001), (412, 412001)):
        with World() as world:
            world.step()
            if code == 400037:
                world.hear(202, {})
            world.hear(status, {"errorCode": code, "message": "no", "trackingId": "t", "info": {}})
            assert world.ways == [True] and "error hub.renew %d tracking t no" % code in world.lines, world.lines


def test_answers_that_make_no_sense():
    for status, body in (
        (200, {}), (200, []), (200, 7), (200, None), (200, {"certificates": None}), (200, {"certificates": [7]}),
        (200, {"certificates": ["-----"]}), (400, []), (400, 7), (403, {"retryAfter": "soon"}),
        (400, {"errorCode": "x"}), (299, {}),
    ):  # fmt: skip
        with World() as world:
            world.keeps = "cert-form"
            world.step()
            world.hear(status, body)
            assert world.ways == [True] and world.kept == [], (status, body)
    for topic in (b"$iothub/credentials/res/200", b"$iothub/credentials/res/x/?$rid=%s", b"\xff", b"a/b/c/d/e"):
        with World() as world:
            world.step()
            renew.hear(world, topic.replace(b"%s", world.renewal.rid.encode()), b"[]")
            assert world.renewal.answer is None and world.renew_at == NOW + 30
    with World() as world:
        world.step()
        world.hear(200, b"not json")
        assert world.renewal.answer is None
        world.hear(200, {"certificates": CERTIFICATES}, "another")
        assert world.kept == []


def test_a_late_answer_is_nothing():
    with World() as world:
        renew.hear(world, b"$iothub/credentials/res/200/?$rid=x", b"{}")
        assert world.renewal is None and world.kept == []


def test_a_chain_that_is_not_ours_leads_to_dps():
    with World() as world:
        world.keeps = "cert-key"
        world.step()
        world.hear(200, {"certificates": [vectors.OTHER_LEAF]})
        assert world.ways == [True] and "error certificate cert-key" in world.lines


def test_a_chain_that_the_heap_has_no_room_for():
    with World() as world:

        def keep(*what):
            raise MemoryError

        world.keep = keep
        world.step()
        assert raises("memory", world.hear, 200, CERTIFICATES).step == "hub.renew" and world.ways == []


def test_what_an_error_means_does_not_lie_in_the_chain_s_way():
    with World() as world:
        world.step()
        world.hear(429, {"errorCode": 429002})
        assert "aziot.faults" in sys.modules
        world.now = world.renew_at
        world.step()
        assert "aziot.faults" not in sys.modules


def test_the_application_hears_when_it_has_failed_for_long():
    # 34 % of the life are for renewal; half of that is over 510 s before the end.
    for left, warned in ((1000, []), (511, []), (509, [509]), (-5, [-5])):
        with World(hub_api="2021-04-12") as world:
            world.works = False
            world.record.not_before, world.record.not_after = NOW + left - 3000, NOW + left
            world.step()
            assert world.warned == warned, (left, world.warned)
    with World(hub_api="2021-04-12") as world:
        world.record.not_before, world.record.not_after = NOW - 2999, NOW + 1
        world.step()
        assert world.warned == []
        world.works = False
        world.on_expiring = None
        world.step()


def test_what_cannot_be_reached_is_for_the_caller():
    def fails(payload=None, renew=False):
        raise AzureError("tcp", "hub.connect")

    with World() as world:
        world.connect = fails
        world.step()
        raises("tcp", world.hear, 200, {"certificates": CERTIFICATES})
        assert world.renewal is None
