"""Which way a device goes: with the service and the Hub played by two functions."""

import json
from binascii import a2b_base64

import vectors
from aziot import clock, device, dps, hub, recover, store
from aziot.device import Device
from aziot.errors import AzureError
from check import Folder, raises, write

NOW = 1800000000
CHAIN = [vectors.P384_LEAF, vectors.INTERMEDIATE]


class World:
    """A board's files, an answer of DPS, a Hub that takes a session or raises, a clock and time servers."""

    def __init__(self, chain=CHAIN, csr=True, **config):
        self.chain = chain
        self.csr = csr
        self.config = dict({"registration_id": "contoso-0001", "id_scope": "0ne", "spread": 0}, **config)
        self.now = NOW
        self.ntp = NOW  # what the time servers say; None if they don't
        self.ticks = 0
        self.dps_says = []  # an error code or None a registration
        self.hub_says = []  # the same a connection
        self.opened = []
        self.pauses = []
        self.registered = 0
        self.asked = []  # of each registration: whether with a CSR, its API version, whether by the secondary key
        self.tried = []  # of each connection: API version, whether by the secondary key
        self.assigned = "hub-1", "dev-1"
        self.secrets = None
        self.lines = []

    def __enter__(self):
        self.folder = Folder()
        self.root = root = self.folder.__enter__()
        write(root + "device.json", json.dumps(self.config))
        if self.csr:
            write(root + "device.csr", a2b_base64(vectors.P384_CSR))
        self.real = (
            clock.now, clock.sync, recover.due, recover.left, device.pause, device.forget, dps.register, hub.Session.open,
        )  # fmt: skip
        self.put(
            lambda: self.now, self.sync, lambda ms: self.ticks + ms, lambda end: end - self.ticks, self.pauses.append,
            lambda *names: None, self.register, lambda session, record: self.open(session, record),
        )  # fmt: skip
        self.restart()
        return self

    def restart(self):
        """The board starts again, with what is on its flash."""
        self.device = Device.load(self.root, lambda step, text: self.lines.append(step + " " + text))

    def put(self, *what):
        (
            clock.now, clock.sync, recover.due, recover.left, device.pause, device.forget, dps.register, hub.Session.open,
        ) = what  # fmt: skip

    def __exit__(self, *exc):
        self.put(*self.real)
        self.folder.__exit__(*exc)

    def sync(self, hosts):
        if self.ntp is None:
            raise AzureError("ntp", "clock")
        self.now = self.ntp
        return hosts[0]

    def register(self, identity, payload=None, timeout=120, csr=True):
        self.registered += 1
        self.asked.append((csr, identity.dps_api, identity.secondary))
        self.timeout = timeout
        code = self.dps_says.pop(0) if self.dps_says else None
        if code:
            raise code if isinstance(code, AzureError) else AzureError(code, "dps.register")
        name, device_id = self.assigned
        state = {"assignedHub": name, "deviceId": device_id, "payload": payload}
        if csr:
            state["issuedCertificateChain"] = self.chain
        return dps.Assignment(state)

    def open(self, session, record):
        session.record = record
        self.opened.append((record.hub, record.not_after))
        identity = session.device.identity
        self.tried.append((identity.hub_api, identity.secondary))
        code = self.hub_says.pop(0) if self.hub_says else None
        if callable(code):
            code = code(identity, record)
        if code:
            raise AzureError(code, "hub.connect")
        if not record.active:
            store.activate(record)

    def later(self, seconds):
        self.now = self.ntp = self.now + seconds

    def connect(self, **how):
        return self.device.connect(**how)

    def keep(self, hub, not_after=NOW + 1, not_before=1, active=True):
        record = store.save(self.root, hub, "dev-1", not_before, not_after, CHAIN if not_after else ())
        if active:
            store.activate(record)

    def refused(self, *codes):
        """connect() for each of these answers of the Hub, each of which is for the caller to wait out."""
        for code in codes:
            self.hub_says = [code]
            raises(code, self.connect)

    def said(self, words):
        return [line for line in self.lines if line.startswith(words)]


def test_a_blank_board_registers_and_connects_with_what_was_issued():
    with World() as world:
        session = world.connect(payload={"a": 1})
        assert world.registered == 1 and world.device.payload == {"a": 1} and world.pauses == []
        assert world.opened == [("hub-1", 2398377599)] and session.record.active
        assert world.connect() is session
        assert world.registered == 1 and len(world.opened) == 2


def test_without_a_csr_it_connects_as_it_onboarded():
    with World(csr=False) as world:
        world.connect()
        world.connect()
        assert world.opened == [("hub-1", 0)] * 2 and world.registered == 1


def test_no_certificate_issued_is_said_and_not_the_end():
    with World(None) as world:
        world.connect()
        assert world.opened == [("hub-1", 0)]
        assert world.said("error certificate no-certificate")


def test_a_certificate_that_the_hub_has_not_accepted_stays_pending():
    with World() as world:
        world.hub_says = ["timeout"]
        raises("timeout", world.connect)
        assert not store.load(world.root)[0].active
        world.connect()
        assert world.registered == 1 and store.load(world.root)[0].active


def test_an_expired_certificate_leads_to_dps():
    with World() as world:
        world.keep("old", NOW)
        world.connect()
        assert world.registered == 1 and [hub for hub, _ in world.opened] == ["hub-1"]
    with World() as world:
        world.keep("old", NOW + 1)
        world.connect()
        assert world.registered == 0 and [hub for hub, _ in world.opened] == ["old"]


LONG = NOW + 10000000  # the end of a certificate that lasts


def test_refused_leads_to_dps_at_once_where_the_settings_say_so():
    for code in ("connack-4", "connack-5"):
        with World(refusal_patience=0) as world:
            world.keep("old", LONG)
            world.hub_says = [code]
            world.connect()
            assert world.asked[0][0] and [hub for hub, _ in world.opened] == ["old", "hub-1"], code
            assert store.load(world.root)[0].hub == "hub-1"


def test_a_valid_identity_that_is_refused_is_tried_again_for_minutes_before_dps_is_asked():
    for code in ("connack-4", "connack-5"):
        with World() as world:
            world.keep("hub-1", LONG)
            world.refused(code)
            until = world.device.identity.notes["refused"][1]
            assert NOW + 300 <= until <= NOW + 600
            world.later(until - 1 - NOW)
            world.refused(code)
            assert world.registered == 0
            world.restart()  # it may sleep meanwhile
            world.later(1)
            world.hub_says = [code]
            world.connect()
            # DPS is asked where the Hub is, and issues no certificate while this one may still be good
            assert world.asked == [(False, "2026-11-01", False)]
            assert world.opened[-2:] == [("hub-1", LONG)] * 2
            assert "refused" not in world.device.identity.notes


def test_the_patience_of_a_fleet_is_random():
    found = set()
    for _ in range(20):
        with World() as world:
            world.keep("hub-1", LONG)
            world.refused("connack-5")
            found.add(world.device.identity.notes["refused"][1])
    assert max(found) - min(found) > 60


def test_a_hub_that_has_moved_meanwhile_gets_a_certificate_of_its_own():
    with World() as world:
        world.keep("old", LONG)
        world.refused("connack-5")
        world.later(600)
        world.hub_says = ["connack-5"]
        world.connect()
        assert [csr for csr, _, _ in world.asked] == [False, True]
        assert [hub for hub, _ in world.opened[-2:]] == ["old", "hub-1"]


def test_two_hours_of_refusals_cost_one_certificate_and_not_one_a_turn():
    with World() as world:
        world.keep("hub-1", LONG)
        end = NOW + 86400 * 3
        while world.now < end:
            world.hub_says = ["connack-5"] * 9
            raises("connack-5", world.connect)
            if world.said("certificate"):
                # What was issued begins now, and is refused as well
                world.keep("hub-1", LONG + 1, NOW + 7200, active=False)
            del world.lines[:], world.opened[:], world.tried[:]
            world.later(900)
        times = [csr for csr, _, _ in world.asked]
        assert times.count(True) == 1 and 5 <= len(times) <= 30, times


def test_an_expired_certificate_goes_to_dps_at_once_though_there_were_refusals():
    with World() as world:
        world.keep("hub-1", NOW + 100)
        world.refused("connack-5")
        world.later(100)
        world.connect()
        assert world.asked[0][0] and world.registered == 1


def test_a_first_certificate_that_is_refused_is_neither_lost_nor_another_one_issued():
    with World() as world:
        world.hub_says = ["connack-5"]
        assert not raises("connack-5", world.connect).retriable
        world.refused("connack-5", "connack-5")
        assert world.registered == 1 and not store.load(world.root)[0].active
        world.connect()
        assert world.registered == 1 and store.load(world.root)[0].active


def test_without_a_certificate_a_refusal_is_waited_out_as_well():
    with World(csr=False) as world:
        world.keep("hub-1", 0, 0)
        world.refused("connack-5")
        assert world.registered == 0
        world.later(600)
        world.hub_says = ["connack-5"]
        world.connect()
        assert world.registered == 1


def test_what_anyone_on_the_path_can_send_costs_no_identity_and_not_dps():
    for code in ("tls-alert", "config"):
        with World() as world:
            world.keep("old", LONG)
            world.keep("new", LONG + 9, active=False)
            world.hub_says = [code]
            world.connect()  # the next one is tried, which is active
            assert world.opened == [("new", LONG + 9), ("old", LONG)]
            world.connect()
            assert world.opened[2:] == [("new", LONG + 9)] and world.registered == 0, code
        with World() as world:
            world.keep("hub-1", LONG)
            for _ in range(14):
                world.refused(code)
                world.later(60)
            assert world.registered == 0
            world.later(1000)
            world.hub_says = [code]
            world.connect()
            assert world.asked == [(False, "2026-11-01", False)]  # and no certificate


def test_a_certificate_for_another_key_is_replaced_at_once():
    with World() as world:
        world.keep("old", LONG)
        write(world.root + "device.csr", a2b_base64(vectors.P256_CSR))
        world.chain = [vectors.P256_LEAF, vectors.INTERMEDIATE]
        world.hub_says = ["tls-alert"]
        world.connect()
        assert world.asked[0][0] and [hub for hub, _ in world.opened] == ["old", "hub-1"]


def test_dps_s_refusal_is_the_one_that_is_told():
    with World(refusal_patience=0) as world:
        world.keep("old")
        world.hub_says = ["connack-5", "connack-5"]
        assert not raises("connack-5", world.connect).retriable
        assert world.registered == 1 and len(world.opened) == 2
        world.dps_says = [401002]
        world.hub_says = ["connack-5", "connack-5"]
        raises(401002, world.connect)


def test_a_fleet_that_is_refused_spreads():
    with World(spread=1000, refusal_patience=0) as world:
        for _ in range(20):
            world.keep("old")
            world.hub_says = ["connack-5"]
            world.connect()
        assert len(world.pauses) == 20 and min(world.pauses) >= 0 and max(world.pauses) <= 1000
        assert max(world.pauses) - min(world.pauses) > 100, world.pauses
        assert world.said("wait %d s" % world.pauses[0])
    with World(spread=1000) as world:
        world.connect()
        assert world.pauses == []  # a blank board is somebody's first


def test_unreachable_is_waited_out():
    for code in ("timeout", "closed", "dns", "tcp", "tls-root", "tls-name", "tls-date", "connack-3", "memory"):
        with World() as world:
            world.keep("old")
            for _ in range(5):
                world.hub_says = [code]
                raises(code, world.connect)
            assert world.registered == 0 and store.load(world.root)[0].hub == "old", code


def test_a_hub_out_of_reach_for_long_leads_to_dps_ever_more_rarely():
    with World(patience=900) as world:
        world.keep("hub-1", NOW + 10000000)
        asked = []
        while len(asked) < 9:
            del world.lines[:], world.opened[:], world.tried[:]
            world.hub_says = ["dns", "dns"]
            before = world.registered
            raises("dns", world.connect)
            if world.registered > before:
                asked.append(world.ticks // 1000)
            world.ticks += 300000
        waits = [b - a for a, b in zip([0] + asked, asked)]
        for wait, patience in zip(waits, (900, 1800, 3600, 7200, 14400, 28800, 43200, 43200, 43200)):
            assert patience <= wait <= 2.02 * patience + 300, waits
        # Found again: patience begins anew.
        world.connect()
        world.ticks += 10**8
        world.hub_says = ["dns"]
        raises("dns", world.connect)
        assert world.registered == 9 and not any(csr for csr, _, _ in world.asked)


def test_dps_is_asked_once_in_that_time_whatever_it_says():
    with World(patience=900) as world:
        world.keep("old")
        for _ in range(2 * 900 // 60 + 2):
            world.hub_says = ["tcp", "tcp"]
            world.dps_says = [503]
            try:
                world.connect()
            except AzureError as e:
                assert e.code in ("tcp", 503)
            world.ticks += 60000
        assert world.registered == 1


def test_a_new_certificate_is_tried_first_and_an_old_one_again_when_it_is_refused():
    with World() as world:
        world.keep("old", NOW + 5)
        world.keep("new", NOW + 9, active=False)
        world.hub_says = ["connack-5"]
        world.connect()
        assert world.opened == [("new", NOW + 9), ("old", NOW + 5)] and world.registered == 0
        world.connect()  # what was refused is not tried again
        assert world.opened[2:] == [("old", NOW + 5)]
        world.keep("new", NOW + 9, active=False)
        world.hub_says = ["timeout"]
        raises("timeout", world.connect)
        world.connect()
        assert world.opened[3:] == [("new", NOW + 9)] * 2
        world.connect()
        assert world.opened[5:] == [("new", NOW + 9)]


def test_renewal_at_dps_and_back_to_the_old_one_if_that_fails():
    with World() as world:
        world.keep("old", NOW + 5)
        world.connect()
        world.connect(renew=True)
        assert world.registered == 1 and [hub for hub, _ in world.opened] == ["old", "hub-1"] and world.pauses == []
        assert world.timeout == world.device.identity.timeout  # telemetry waits meanwhile
    for dps_says, hub_says, last in (([429001], [], "old"), (["timeout"], [], "old"), ([None], ["connack-5"], "old")):
        with World() as world:
            world.keep("old", NOW + 5)
            world.dps_says, world.hub_says = dps_says, hub_says
            world.connect(renew=True)
            assert world.registered == 1 and world.opened[-1][0] == last


def test_no_chain_at_a_renewal_leaves_the_certificate():
    with World(None) as world:
        world.keep("old", NOW + 500000)
        world.connect()
        world.connect(renew=True)
        assert world.registered == 1 and world.said("error certificate no-certificate")
        world.connect()
        assert world.opened[1:] == [("old", NOW + 500000)] * 2


def test_a_refusal_that_cannot_be_written_does_not_block_the_old_one():
    def full(*_):
        raise AzureError("store", "certificate", "28")

    with World() as world:
        world.keep("old", NOW + 5)
        world.keep("new", NOW + 9, active=False)
        world.hub_says = ["connack-5"]
        real, store._write = store._write, full
        try:
            world.connect()
        finally:
            store._write = real
        assert world.opened == [("new", NOW + 9), ("old", NOW + 5)] and world.said("error certificate store")


def test_a_chain_that_is_not_ours_changes_nothing():
    for chain in ([vectors.OTHER_LEAF], [vectors.P256_LEAF], ["QUJD"], [7], "x"):
        with World(chain) as world:
            e = raises("cert-form" if chain in (["QUJD"], [7], "x") else "cert-key", world.connect)
            assert e.step == "certificate" and store.load(world.root) == [] and world.opened == []


def test_out_of_memory_is_an_error_like_the_others():
    def fails(name):
        raise MemoryError

    with World() as world:
        real, device._module = device._module, fails
        try:
            assert raises("memory", world.connect).retriable
        finally:
            device._module = real


def test_fields_of_an_assignment_have_their_documented_form():
    from aziot.settings import assigned

    # RFC 1123 host names; device ids: IoT Hub documentation, "Device identity properties"
    longest = ".".join(["a" * 63] * 3 + ["b" * 61])
    for name in ("contoso.azure-devices.net", "contoso.device.azure-devices.net", "HUB-1.localhost", longest):
        assigned(name, "x")
    for name in (
        "a hub", "hub\n", "hub\n1 2 3", "hub:8883", "hub/x", "hub\0", "h\u00fcb", longest + "c", "x" * 300,
        [1], {}, None, 7, True,
    ):  # fmt: skip
        assert raises("protocol", assigned, name, "x").text == "assignedHub", name
    for name in ("a", "A-._%*?!(),:=@$'z9", "x" * 128):
        assigned("x", name)
    for name in ("", "a b", "a\n", "a/b", 'a"b', "a&b", "a+b", "a#", "a\x7f", "\u00e9", "x" * 129, "x" * 1000, None, 7, ["x"]):
        assert raises("protocol", assigned, "x", name).text == "deviceId", name


def test_nothing_is_stored_of_an_assignment_that_is_not_of_that_form():
    for assigned in (("a hub", "dev-1"), ("hub-1\n9 1 2 evil", "dev-1"), ("hub-1", "d 1"), ("hub-1", "x" * 1000)):
        with World() as world:
            world.assigned = assigned
            assert raises("protocol", world.connect).step == "dps.register"
            assert store.load(world.root) == [] and world.opened == []


def test_other_forms_of_a_chain():
    from binascii import b2a_base64

    def pem(text):
        lines = "\n".join([text[i : i + 64] for i in range(0, len(text), 64)])  # RFC 7468
        return "-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n" % lines

    leaf, intermediate, root = vectors.P384_LEAF, vectors.INTERMEDIATE, vectors.ROOT
    pems = [pem(text) for text in (leaf, intermediate, root)]
    coded = [b2a_base64(text.encode()).strip().decode() for text in pems]
    for chain in (
        pems, coded, [leaf + "\n", " " + intermediate], [leaf[:80] + "\r\n" + leaf[80:], intermediate],
        [root, pems[1], coded[0]], "".join(pems), ["".join(pems)], [pems[0].replace("\n", "\r\n"), intermediate],
        ["Bag Attributes\n" + pems[0], pems[1]], [memoryview(coded[0].encode()), memoryview(pems[1].encode())],
        [b2a_base64("".join(pems).encode()).strip().decode()],
    ):  # fmt: skip
        with World(chain) as world:
            world.connect()
            assert world.opened == [("hub-1", 2398377599)], chain
            record = store.load(world.root)[0]
            with open(record.path) as f:
                text = f.read(record.size)
            assert text[text.index("-----") :] == pems[0] + pems[1]


def test_a_certificate_that_is_over_before_it_is_used_is_not_stored():
    with World() as world:
        for left in (1, 30):
            world.now = world.ntp = 2398377599 - left
            assert raises("cert-date", world.connect).step == "certificate"
            assert store.load(world.root) == [] and world.opened == []
        world.now = world.ntp = 2398377599 - 31
        world.connect()


def test_a_renewal_that_ends_before_what_it_shall_replace_is_not_taken():
    with World() as world:
        world.keep("old", 2398377600)
        world.connect()
        world.connect(renew=True)
        assert world.said("error certificate cert-date") and [hub for hub, _ in world.opened] == ["old", "old"]
        # In the end another one of that life is worth a question.
        assert world.device.renew_from == NOW + 1
        # At a refusal it is better than none.
        world.device.identity.refusal_patience = 0
        world.hub_says = ["connack-5"]
        world.connect()
        assert world.opened[-1] == ("hub-1", 2398377599)


def test_a_renewal_that_is_over_does_not_stop_the_next_one():
    with World() as world:
        world.keep("old", LONG)
        world.now = world.ntp = 1767225600 - 86400  # the issued one begins in a day
        raises("cert-date", world.device.keep, "hub-1", "dev-1", CHAIN, a2b_base64(vectors.P384_CSR))
        world.now = world.ntp = 2398377599 + 5  # and is over
        old = store.load(world.root)[0]
        old.not_after = world.now + 100
        raises("cert-date", world.device.keep, "hub-1", "dev-1", CHAIN, a2b_base64(vectors.P384_CSR), old)
        assert world.device.renew_from < world.now


def test_a_date_that_does_not_fit_sets_the_clock_at_once():
    # the Hub's certificate
    with World() as world:
        world.keep("old", NOW + 5000, NOW - 5000)
        world.now = NOW + 4000  # wrong, but no reason to set it before
        world.hub_says = ["tls-date"]
        world.connect()
        assert world.now == NOW and len(world.opened) == 2 and world.registered == 0
        world.hub_says = ["tls-date"]  # the clock is right: for the caller to wait out
        assert raises("tls-date", world.connect).retriable and len(world.opened) == 3
    # DPS's certificate
    with World() as world:
        world.now = NOW + 4000
        world.dps_says = ["tls-date"]
        world.connect()
        assert world.now == NOW and world.registered == 2
    # the one that was just issued: valid from 2026-01-01 on, with five minutes of grace
    with World() as world:
        world.now = 1767225600 - 400
        real, clock.is_set = clock.is_set, lambda: True
        try:
            world.connect()
        finally:
            clock.is_set = real
        assert world.now == NOW and world.registered == 1 and world.opened == [("hub-1", 2398377599)]


def test_a_wait_that_dps_asks_for_holds_across_attempts():
    with World() as world:
        world.dps_says = [AzureError(429001, "dps.register", "", 3600)]
        assert raises(429001, world.connect).retry_after == 3600
        world.ticks += 600 * 1000
        e = raises(429001, world.connect)
        assert world.registered == 1 and 3000 <= e.retry_after <= 3001
        world.ticks += 3000 * 1000
        world.connect()
        assert world.registered == 2
    with World() as world:  # at a renewal, too, while the session goes on
        world.keep("old", LONG)
        world.connect()
        world.dps_says = [AzureError(429001, "dps.register", "", 100)]
        world.connect(renew=True)
        world.connect(renew=True)
        assert world.registered == 1 and len(world.opened) == 3
        world.ticks += 100000
        world.connect(renew=True)
        assert world.registered == 2


def test_the_other_device_key_is_tried_once_and_first_the_next_time():
    keys = json.dumps({"device_key": "QUFB", "secondary_device_key": "QkJC"})
    # at DPS
    for code in (401000, 401002, "connack-5"):
        with World() as world:
            write(world.root + "secrets.json", keys)
            world.dps_says = [code]
            world.connect()
            assert [second for _, _, second in world.asked] == [False, True]
            world.restart()
            assert world.device.identity.secondary
            world.dps_says = [code, code, code]
            world.device.identity.refusal_patience = 0
            world.hub_says = ["connack-5"]
            raises(code, world.connect)
            assert [second for _, _, second in world.asked[2:4]] == [True, False]
    # at the Hub, without a certificate
    with World(csr=False) as world:
        write(world.root + "secrets.json", keys)
        world.keep("hub-1", 0, 0)
        world.hub_says = ["connack-5"]
        world.connect()
        assert [second for _, second in world.tried] == [False, True] and world.registered == 0
        assert "refused" not in world.device.identity.notes
        world.restart()
        world.connect()
        assert world.tried[2:] == [("2021-04-12", True)]
        world.hub_says = ["connack-5", "connack-5"]
        raises("connack-5", world.connect)
        assert world.device.identity.secondary  # as before
    # with one key, or a certificate, there is no other
    with World() as world:
        world.dps_says = [401000]
        raises(401000, world.connect)
        assert world.registered == 1


def version_refused():
    return AzureError(400004, "dps.register", "Unsupported API version")


def test_the_api_version_of_dps_is_found_and_remembered():
    for refusal in (version_refused(), AzureError(400012, "x", "api-VERSION 7"), 404, 405, "connack-5"):
        with World() as world:
            world.dps_says = [refusal]
            world.connect()
            assert [version for _, version, _ in world.asked] == ["2026-11-01", "2025-07-01-preview"], refusal
            world.restart()
            assert world.device.identity.dps_api == "2025-07-01-preview"
    # What the settings say is first.
    with World(dps_api="2025-05-05-preview") as world:
        world.dps_says = [version_refused(), version_refused()]
        world.connect()
        versions = ["2025-05-05-preview", "2026-11-01", "2025-07-01-preview"]
        assert [version for _, version, _ in world.asked] == versions
        # Another setting makes the note void.
        write(world.root + "device.json", json.dumps(dict(world.config, dps_api="2027-01-01")))
        world.restart()
        assert world.device.identity.dps_api == "2027-01-01"


def test_no_version_is_tried_twice_nor_for_another_reason():
    with World() as world:
        world.dps_says = [version_refused(), version_refused()]
        raises(400004, world.connect)
        assert world.registered == 2 and world.device.identity.dps_api == "2026-11-01"
        for code in (400004, 401002, 429001, 404201, "timeout", "disabled"):
            world.device.floor = None
            del world.asked[:]
            world.dps_says = [code]
            raises(code, world.connect)
            assert len(world.asked) == 1, code


def test_the_hub_s_api_version_falls_back_when_that_helps():
    def old_only(identity, record):
        return "connack-5" if identity.hub_api > "2022" else None

    with World(hub_api="2025-08-01-preview") as world:
        world.keep("hub-1", LONG)
        world.hub_says = [old_only] * 9
        world.connect()
        assert world.device.identity.hub_api == "2021-04-12" and world.registered == 0
        world.restart()
        del world.tried[:]
        world.connect()
        assert world.tried == [("2021-04-12", False)]
    # The end of an outage is not taken for that.
    with World(hub_api="2025-08-01-preview") as world:
        world.keep("hub-1", LONG)
        world.hub_says = ["connack-5"]
        world.connect()
        assert [version for version, _ in world.tried] == ["2025-08-01-preview", "2021-04-12", "2025-08-01-preview"]
        world.restart()
        assert world.device.identity.hub_api == "2025-08-01-preview" and world.registered == 0
    # An outage: both are tried once, then the first alone until DPS is asked.
    with World(hub_api="2025-08-01-preview") as world:
        world.keep("hub-1", LONG)
        for _ in range(3):
            world.hub_says = ["connack-5", "connack-5"]
            raises("connack-5", world.connect)
            world.later(60)
        assert [version for version, _ in world.tried] == [
            "2025-08-01-preview", "2021-04-12", "2025-08-01-preview", "2025-08-01-preview",
        ]  # fmt: skip


def test_notes_that_are_damaged_count_for_nothing():
    good = {"settings": ["contoso-0001", "2026-11-01", "2021-04-12"], "secondary": True}
    for notes in (
        "", "[]", "7", "{", "\xff", "{}", "\0" * 90, json.dumps(dict(good, settings=["other", "", ""])),
    ):  # fmt: skip
        with World() as world:
            write(world.root + "notes.json", notes)
            world.restart()
            assert list(world.device.identity.notes) == ["settings"] and not world.device.identity.secondary, notes
            world.connect()
    with World() as world:
        write(world.root + "notes.json", json.dumps(good))
        world.restart()
        assert world.device.identity.secondary


def test_a_clock_that_is_not_set_is_set_first():
    with World() as world:
        world.keep("old", NOW + 5, NOW - 5)
        for unset in (0, 946684800):
            world.now = unset
            world.connect()
            assert world.opened.pop() == ("old", NOW + 5) and world.registered == 0
        assert world.said("clock 2027-01-15T08:00:00Z from pool.ntp.org")
    with World() as world:
        world.now = 946684800
        world.connect()  # a blank board, too
        assert world.said("clock 2027-01-15T08:00:00Z")
    with World() as world:
        world.keep("old", NOW + 5, NOW - 5)
        world.now = 946684800
        world.ntp = None
        raises("ntp", world.connect)  # and not "expired", nor DPS
        assert world.registered == 0


def test_a_wrong_clock_does_not_cost_a_certificate():
    for wrong in (NOW + 400000000, NOW - 10000):
        with World() as world:
            world.keep("old", NOW + 5000, NOW - 5000)
            world.now = wrong
            world.connect()
            assert world.opened == [("old", NOW + 5000)] and world.registered == 0 and world.now == NOW
    # Nobody can tell the time: by the clock there is it has expired.
    with World() as world:
        world.keep("old", NOW + 5000, NOW - 5000)
        world.now = NOW + 5000
        world.ntp = None
        world.connect()
        assert world.registered == 1


def test_the_clock_is_set_again_after_a_failure_only():
    with World() as world:
        world.keep("old", NOW + 5000)
        world.connect()
        world.connect()
        assert not world.said("clock")
        world.hub_says = ["tls-date"]
        raises("tls-date", world.connect)
        world.now = NOW + 400
        world.connect()
        assert len(world.said("clock")) == 2 and world.now == NOW  # at once, and before the next attempt
        world.connect()
        assert len(world.said("clock")) == 2


def test_what_a_stage_needed_is_forgotten_after_it():
    import sys

    import aziot
    import aziot.dps2021

    before = sys.modules["aziot.dps2021"]
    device.forget("dps2021", "never-loaded")
    assert "aziot.dps2021" not in sys.modules and not hasattr(aziot, "dps2021")
    import aziot.dps2021

    assert sys.modules["aziot.dps2021"] is not before
