"""Which way a device goes: with the service and the Hub played by two functions."""

import json
from binascii import a2b_base64

import vectors
from aziot import clock, device, dps, hub, store
from aziot.device import Device
from aziot.errors import AzureError
from check import Folder, raises, write

NOW = 1800000000


class World:
    """A board's files, an answer of DPS, and a Hub that takes a session or raises."""

    def __init__(self, chain=None, csr=True):
        self.chain = chain
        self.csr = csr
        self.hub_says = []  # an AzureError or None a connection
        self.opened = []
        self.registered = 0
        self.lines = []

    def __enter__(self):
        self.folder = Folder()
        self.root = root = self.folder.__enter__()
        write(root + "device.json", json.dumps({"registration_id": "contoso-0001", "id_scope": "0ne"}))
        if self.csr:
            write(root + "device.csr", a2b_base64(vectors.P384_CSR))
        self.real = clock.now, dps.register, hub.Session, device.forget
        clock.now, dps.register, hub.Session, device.forget = (lambda: NOW), self.register, self.session, self.forget
        return self

    def __exit__(self, *exc):
        clock.now, dps.register, hub.Session, device.forget = self.real
        self.folder.__exit__(*exc)

    def register(self, identity, payload=None):
        self.registered += 1
        return dps.Assignment(
            {
                "assignedHub": "hub-1",
                "deviceId": "contoso-0001",
                "issuedCertificateChain": self.chain,
                "payload": payload,
            }
        )

    def forget(self, *names):
        pass  # what this test has put in place of the real functions must stay

    def session(self, identity, host, device_id, record=None):
        self.opened.append((host, record.path if record.not_after else None))
        answer = self.hub_says.pop(0) if self.hub_says else None
        if answer:
            raise AzureError(answer, "hub.connect")
        return "session"

    def connect(self, payload=None):
        self.device = Device.load(self.root, lambda step, text: self.lines.append(step + " " + text))
        return self.device.connect(payload)


CHAIN = [vectors.P384_LEAF, vectors.INTERMEDIATE]


def test_a_blank_board_registers_and_connects_with_what_was_issued():
    with World(CHAIN) as world:
        assert world.connect({"a": 1}) == "session"
        assert world.registered == 1 and world.device.payload == {"a": 1}
        (record,) = store.load(world.root)
        assert record.active and world.opened == [("hub-1", record.path)]
        assert world.connect() == "session"
        assert world.registered == 1 and world.device.payload is None


def test_without_a_csr_it_connects_as_it_onboarded():
    with World(csr=False) as world:
        world.connect()
        world.connect()
        assert world.opened == [("hub-1", None)] * 2 and world.registered == 1


def test_no_certificate_issued_is_said_and_not_the_end():
    with World(None) as world:
        world.connect()
        assert world.opened == [("hub-1", None)]
        assert [line for line in world.lines if line.startswith("error certificate no-certificate")]


def test_a_certificate_that_the_hub_has_not_accepted_stays_pending():
    with World(CHAIN) as world:
        world.hub_says = ["timeout"]
        raises("timeout", world.connect)
        assert not store.load(world.root)[0].active
        world.connect()
        assert world.registered == 1 and store.load(world.root)[0].active


def test_an_expired_certificate_leads_to_dps():
    with World(CHAIN) as world:
        store.activate(store.save(world.root, "old", "contoso-0001", 1, NOW, CHAIN))
        world.connect()
        assert world.registered == 1 and world.opened[0][0] == "hub-1"
    with World(CHAIN) as world:
        store.activate(store.save(world.root, "old", "contoso-0001", 1, NOW + 1, CHAIN))
        world.connect()
        assert world.registered == 0 and world.opened[0][0] == "old"


def test_refused_leads_to_dps_and_unreachable_does_not():
    for code in ("connack-4", "connack-5", "tls-alert", "config"):
        with World(CHAIN) as world:
            store.activate(store.save(world.root, "old", "contoso-0001", 1, NOW + 1, CHAIN))
            world.hub_says = [code]
            world.connect()
            assert world.registered == 1 and [hub for hub, _ in world.opened] == ["old", "hub-1"], code
            assert store.load(world.root)[0].hub == "hub-1"
    for code in ("timeout", "closed", "dns", "tcp", "tls-root", "tls-name", "tls-date", "connack-3", "memory"):
        with World(CHAIN) as world:
            store.activate(store.save(world.root, "old", "contoso-0001", 1, NOW + 1, CHAIN))
            world.hub_says = [code]
            raises(code, world.connect)
            assert world.registered == 0 and store.load(world.root)[0].hub == "old", code


def test_a_chain_that_is_not_ours_changes_nothing():
    for chain in ([vectors.OTHER_LEAF], [vectors.P256_LEAF], ["QUJD"], [7], "x"):
        with World(chain) as world:
            e = raises("cert-form" if chain in (["QUJD"], [7], "x") else "cert-key", world.connect)
            assert e.step == "certificate" and store.load(world.root) == [] and world.opened == []


def test_out_of_memory_is_an_error_like_the_others():
    def fails(root):
        raise MemoryError

    with World(CHAIN) as world:
        real, device.store.load = device.store.load, fails
        try:
            assert raises("memory", world.connect).retriable
        finally:
            device.store.load = real


def test_the_clock_is_set_first():
    asked = []

    def sync(hosts):
        asked.append(hosts)
        clock.now = lambda: NOW
        return "ntp-1"

    with World(CHAIN) as world:
        real, clock.sync = clock.sync, sync
        try:
            clock.now = lambda: 946684800
            world.connect()
        finally:
            clock.sync = real
        assert asked == [["pool.ntp.org"]]
        assert [line for line in world.lines if line.startswith("clock 2027-01-15T08:00:00Z from ntp-1")]


def test_what_a_stage_needed_is_forgotten_after_it():
    import sys

    import aziot
    import aziot.dps2021

    before = sys.modules["aziot.dps2021"]
    device.forget("dps2021", "never-loaded")
    assert "aziot.dps2021" not in sys.modules and not hasattr(aziot, "dps2021")
    import aziot.dps2021

    assert sys.modules["aziot.dps2021"] is not before
