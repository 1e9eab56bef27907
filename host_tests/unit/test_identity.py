import json

import vectors
from aziot import clock
from aziot.identity import Identity
from check import Folder, raises, write

CONFIG = {"registration_id": "contoso-0001", "id_scope": "0ne00C0FFEE"}


def test_defaults_are_azure_s():
    with Folder() as root:
        write(root + "device.json", json.dumps(CONFIG))
        identity = Identity(root)
        assert identity.dps_host == "global.azure-devices-provisioning.net"
        assert (identity.port, identity.auth, identity.dps_api) == (8883, "symmetric-key", "2026-11-01")
        assert identity.csr() is None


def test_what_is_missing_is_named():
    with Folder() as root:
        assert "device.json" in str(raises("config", Identity, root))
        for content, word in (('[["port", 1]]', "device.json"), ('{"id_scope": "0ne"}', "registration_id")):
            write(root + "device.json", content)
            assert word in str(raises("config", Identity, root))


def test_a_value_of_the_wrong_type_is_named():
    with Folder() as root:
        for name, value in (
            ("registration_id", 5),
            ("id_scope", None),
            ("port", "8883"),
            ("ntp", "pool.ntp.org"),
            ("dps_host", ["a"]),
            ("timeout", {}),
        ):
            write(root + "device.json", json.dumps(dict(CONFIG, **{name: value})))
            assert name in str(raises("config", Identity, root))
        # What this firmware does not know is for a later one; its own methods and paths are not to be had.
        write(root + "device.json", json.dumps(dict(CONFIG, later=1, root="/x", _x="x")))
        assert Identity(root).root == root


def test_a_value_that_cannot_be_used_is_named():
    with Folder() as root:
        for name, values in (
            ("port", (0, -1, 65536, 70000, 1 << 40, True, 8883.0)),
            ("timeout", (0, -5, 1 << 40)),
            ("token_life", (0,)),
            ("renew", (0, 91, 1000)),
            ("patience", (-1, 1 << 40)),
            ("spread", (-1,)),
            ("dps_host", ("", "a b", "https://x", "x:8883", "a\n", "x/", "\u00fc")),
            ("id_scope", ("", "0ne/", "0ne x", "0ne&x")),
            ("registration_id", ("", "a b", "a/b", "x" * 300, "a\n")),
            ("dps_api", ("", "2025&x")),
            ("hub_api", ("", "2021 04")),
            ("auth", ("", "sas")),
            # the names of methods are not settings
            ("log", (1, "x", {})),
            ("csr", ("x",)),
            ("json", ("x",)),
        ):
            for value in values:
                write(root + "device.json", json.dumps(dict(CONFIG, **{name: value})))
                assert raises("config", Identity, root).text == name, (name, value)
        for name, value in (("port", 65535), ("spread", 0), ("patience", 0), ("outbox", 0), ("renew", 90), ("ntp", [])):
            write(root + "device.json", json.dumps(dict(CONFIG, **{name: value})))
            assert getattr(Identity(root), name) == value


def test_a_file_in_another_encoding_is_named():
    text = json.dumps(CONFIG)
    with Folder() as root:
        wide = bytes([byte for c in text.encode() for byte in (c, 0)])
        for content in (b"\xef\xbb\xbf" + text.encode(), b"\xff\xfe" + wide, wide, b"", b"\xff", b"\0" * 300):
            write(root + "device.json", content)
            e = raises("config", Identity, root)
            assert e.text in ("device.json", "registration_id", "id_scope"), (content[:9], e.text)


def test_tokens_need_a_key_and_never_show_it():
    with Folder() as root:
        write(root + "device.json", json.dumps(CONFIG))
        identity = Identity(root)
        assert "secrets.json" in str(raises("config", identity.password))
        write(root + "secrets.json", "{}")
        assert "device_key" in str(raises("config", identity.password))
        write(root + "secrets.json", json.dumps({"device_key": vectors.DEVICE_KEY}))
        token = identity.password()
        assert token.startswith("SharedAccessSignature sr=0ne00C0FFEE%2Fregistrations%2Fcontoso-0001&sig=")
        assert token.endswith("&skn=registration")
        assert vectors.DEVICE_KEY not in token


def test_a_request_in_pem_is_found_here():
    with Folder() as root:
        write(root + "device.json", json.dumps(CONFIG))
        write(root + "device.csr", b"-----BEGIN CERTIFICATE REQUEST-----")
        raises("csr", Identity(root).csr)
        write(root + "device.csr", b"0" * 2048)
        raises("csr", Identity(root).csr)


def test_a_registration_id_is_taken_as_the_tools_have_checked_it():
    with Folder() as root:
        for rid in ("a", "0", "a" * 128, "Contoso-1.b_c:d", "ends-with-a-dash-"):
            write(root + "device.json", json.dumps(dict(CONFIG, registration_id=rid)))
            assert Identity(root).registration_id == rid
        write(root + "device.json", json.dumps(dict(CONFIG, registration_id="")))
        raises("config", Identity, root)


def test_the_life_of_a_token_is_a_setting():
    with Folder() as root:
        write(root + "device.json", json.dumps(dict(CONFIG, token_life=7)))
        write(root + "secrets.json", json.dumps({"device_key": vectors.DEVICE_KEY}))
        identity = Identity(root)
        for token in (identity.password(), identity.password("hub", "contoso-0001")):
            expires = int(token.split("&se=")[1].split("&")[0])
            assert 3600 <= expires - clock.now() <= 3607  # of a clock that may be an hour behind


def test_nobody_signs_by_a_clock_that_is_not_set():
    with Folder() as root:
        write(root + "device.json", json.dumps(CONFIG))
        write(root + "secrets.json", json.dumps({"device_key": vectors.DEVICE_KEY}))
        identity = Identity(root)
        real, clock.now = clock.now, lambda: 946684800
        try:
            raises("clock", identity.password)
            raises("clock", identity.password, "hub", "dev")
        finally:
            clock.now = real


def test_the_group_key_on_the_board_works_and_warns():
    said = []
    with Folder() as root:
        write(root + "device.json", json.dumps(CONFIG))
        write(root + "secrets.json", json.dumps({"group_key": vectors.GROUP_KEY}))
        real, clock.now = clock.now, lambda: 1900000000 - 7200
        try:
            assert Identity(root, lambda step, text: said.append(step + " " + text)).password() == vectors.DPS_TOKEN
        finally:
            clock.now = real
    assert len(said) == 1 and said[0].startswith("warning ") and "development" in said[0]


def test_with_x509_there_is_no_token():
    with Folder() as root:
        write(root + "device.json", json.dumps(dict(CONFIG, auth="x509")))
        identity = Identity(root)
        assert identity.password() == identity.password("hub", "dev") == ""
        onboarding = root + "roots.pem", root + "onboarding.crt", root + "onboarding.key", 0
        assert identity.stream("x").files == onboarding

        class Record:
            path = "issued"
            size = 7
            leaf = 5
            not_after = 0

        assert identity.stream("x", Record).files == onboarding  # it has no certificate
        Record.not_after = 1
        assert identity.stream("x", Record).files == (root + "roots.pem", "issued", root + "device.key", 7)
        identity.chain = False  # the leaf alone
        assert identity.stream("x", Record).files == (root + "roots.pem", "issued", root + "device.key", 5)
        write(root + "device.json", json.dumps(CONFIG))
        assert Identity(root).stream("x").files == (root + "roots.pem", "", "", 0)
