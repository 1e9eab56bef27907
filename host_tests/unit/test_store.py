import vectors
from aziot import store
from check import Folder, read, write

CHAIN = [vectors.P384_LEAF, vectors.INTERMEDIATE]


def test_nothing_stored_is_no_record():
    with Folder() as root:
        assert store.load(root) is None


def test_what_was_saved_comes_back_pending_and_then_active():
    with Folder() as root:
        saved = store.save(root, "hub-1", "dev", 5, 9, CHAIN)
        assert not saved.active and not store.load(root).active
        store.activate(saved)
        record = store.load(root)
        assert record.active
        assert (record.hub, record.device_id, record.not_after) == ("hub-1", "dev", 9)


def test_the_file_holds_the_chain_as_pem():
    with Folder() as root:
        text = read(store.save(root, "hub-1", "dev", 5, 9, CHAIN).path).decode()
        assert text.count("-----BEGIN CERTIFICATE-----\n") == text.count("-----END CERTIFICATE-----\n") == 2
        assert max(len(line) for line in text.split("\n")[1:]) <= 64
        body = text.split("-----BEGIN CERTIFICATE-----\n")[1].split("-----END")[0]
        assert body.replace("\n", "") == vectors.P384_LEAF


def test_the_record_in_use_is_never_written_over():
    with Folder() as root:
        first = store.save(root, "hub-1", "dev", 5, 9, CHAIN)
        store.activate(first)
        before = read(first.path)
        second = store.save(root, "hub-2", "dev", 6, 10, CHAIN)
        assert second.path != first.path and read(first.path) == before
        assert store.load(root).hub == "hub-1"  # not accepted yet
        store.activate(second)
        assert store.load(root).hub == "hub-2"
        third = store.save(root, "hub-3", "dev", 7, 11, CHAIN)
        assert third.path == first.path


def test_a_damaged_record_is_none():
    with Folder() as root:
        first = store.save(root, "hub-1", "dev", 5, 9, CHAIN)
        store.activate(first)
        second = store.save(root, "hub-2", "dev", 6, 10, CHAIN)
        store.activate(second)
        good = read(second.path)
        for at in (0, 1, 2, 30, 70, 100, len(good) // 2, len(good) - 2):
            bad = bytearray(good)
            bad[at] ^= 1
            write(second.path, bytes(bad))
            assert store.load(root).hub == "hub-1", at
        for size in (0, 1, 66, 100, len(good) - 1):
            write(second.path, good[:size])
            assert store.load(root).hub == "hub-1", size
        write(second.path, good)
        assert store.load(root).hub == "hub-2"


def test_a_record_without_certificate():
    with Folder() as root:
        store.save(root, "hub-1", "dev")
        record = store.load(root)
        assert (record.hub, record.not_after) == ("hub-1", 0)
        assert b"BEGIN" not in read(record.path)
