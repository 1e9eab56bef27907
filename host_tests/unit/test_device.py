"""Which way a device goes: with the service and the Hub played by two functions."""

import json
from binascii import a2b_base64

import vectors
from aziot import clock, device, dps, hub, store
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
        self.lines = []

    def __enter__(self):
        self.folder = Folder()
        self.root = root = self.folder.__enter__()
        write(root + "device.json", json.dumps(self.config))
        if self.csr:
            write(root + "device.csr", a2b_base64(vectors.P384_CSR))
        self.real = (
            clock.now, clock.sync, device.due, device.left, device.pause, device.forget, dps.register, hub.Session.open,
        )  # fmt: skip
        self.put(
            lambda: self.now, self.sync, lambda ms: self.ticks + ms, lambda end: end - self.ticks, self.pauses.append,
            lambda *names: None, self.register, lambda session, record: self.open(session, record),
        )  # fmt: skip
        self.device = Device.load(root, lambda step, text: self.lines.append(step + " " + text))
        return self

    def put(self, *what):
        clock.now, clock.sync, device.due, device.left, device.pause, device.forget, dps.register, hub.Session.open = (
            what
        )

    def __exit__(self, *exc):
        self.put(*self.real)
        self.folder.__exit__(*exc)

    def sync(self, hosts):
        if self.ntp is None:
            raise AzureError("ntp", "clock")
        self.now = self.ntp
        return hosts[0]

    def register(self, identity, payload=None):
        self.registered += 1
        code = self.dps_says.pop(0) if self.dps_says else None
        if code:
            raise AzureError(code, "dps.register")
        state = {"assignedHub": "hub-1", "deviceId": "dev-1", "issuedCertificateChain": self.chain, "payload": payload}
        return dps.Assignment(state)

    def open(self, session, record):
        session.record = record
        self.opened.append((record.hub, record.not_after))
        code = self.hub_says.pop(0) if self.hub_says else None
        if code:
            raise AzureError(code, "hub.connect")
        if not record.active:
            store.activate(record)

    def connect(self, **how):
        return self.device.connect(**how)

    def keep(self, hub, not_after=NOW + 1, not_before=1, active=True):
        record = store.save(self.root, hub, "dev-1", not_before, not_after, CHAIN if not_after else ())
        if active:
            store.activate(record)

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


def test_refused_leads_to_dps_at_once():
    for code in ("connack-4", "connack-5", "tls-alert", "config"):
        with World() as world:
            world.keep("old")
            world.hub_says = [code]
            world.connect()
            assert world.registered == 1 and [hub for hub, _ in world.opened] == ["old", "hub-1"], code
            assert store.load(world.root)[0].hub == "hub-1"


def test_refused_again_after_dps_is_for_the_caller_to_wait_out():
    with World() as world:
        world.keep("old")
        world.hub_says = ["connack-5", "connack-5"]
        assert not raises("connack-5", world.connect).retriable
        assert world.registered == 1 and len(world.opened) == 2
        world.dps_says = [401002]
        world.hub_says = ["connack-5", "connack-5"]
        raises(401002, world.connect)


def test_a_fleet_that_is_refused_spreads():
    with World(spread=1000) as world:
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
        world.keep("old", NOW + 10000000)
        asked = []
        while len(asked) < 9:
            del world.lines[:], world.opened[:]
            world.hub_says = ["dns", "dns"]
            before = world.registered
            raises("dns", world.connect)
            if world.registered > before:
                asked.append(world.ticks // 1000)
            # What DPS said then is tried as well, so the old one is put back for the next round.
            world.keep("old", NOW + 10000000)
            world.ticks += 300000
        waits = [b - a for a, b in zip([0] + asked, asked)]
        for wait, patience in zip(waits, (900, 1800, 3600, 7200, 14400, 28800, 43200, 43200, 43200)):
            assert patience <= wait <= 2.02 * patience + 300, waits
        # Found again: patience begins anew.
        world.connect()
        world.ticks += 10**8
        world.hub_says = ["dns"]
        raises("dns", world.connect)
        assert world.registered == 9


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
        assert len(world.said("clock")) == 1 and world.now == NOW
        world.connect()
        assert len(world.said("clock")) == 1


def test_what_a_stage_needed_is_forgotten_after_it():
    import sys

    import aziot
    import aziot.dps2021

    before = sys.modules["aziot.dps2021"]
    device.forget("dps2021", "never-loaded")
    assert "aziot.dps2021" not in sys.modules and not hasattr(aziot, "dps2021")
    import aziot.dps2021

    assert sys.modules["aziot.dps2021"] is not before
