import os

import vectors
from aziot import store
from aziot.runtime import sha256
from check import Folder, raises, read, write

CHAIN = [vectors.P384_LEAF, vectors.INTERMEDIATE]
SIZE = 12000  # what `esp-dps flash` makes


def identities(root):
    return [(record.sequence, record.hub, record.active) for record in store.load(root)]


def use(root, hub, chain=CHAIN):
    record = store.save(root, hub, "dev", 5, 9, chain)
    store.activate(record)
    return record


def forge(path, state="A", text="1 5 9 hub dev\n", rest=b""):
    # A record with a right digest, whatever it says.
    body = text.encode() + rest
    write(path, ("%s %s " % (state, sha256(body).digest().hex())).encode() + body)


def pem(record):
    return read(record.path)[: record.size].split(b"\n", 1)[1]


def test_nothing_stored_is_no_record():
    with Folder() as root:
        assert store.load(root) == []


def test_what_was_saved_comes_back_pending_and_then_active():
    with Folder() as root:
        saved = store.save(root, "hub-1", "dev", 5, 9, CHAIN)
        assert not saved.active and not store.load(root)[0].active
        store.activate(saved)
        assert saved.active
        (record,) = store.load(root)
        assert record.active and record.path == saved.path and record.sequence == 1
        assert (record.hub, record.device_id, record.not_before, record.not_after) == ("hub-1", "dev", 5, 9)


def test_the_file_is_a_line_for_people_then_pem_then_empty_lines():
    with Folder() as root:
        record = use(root, "hub-1.azure-devices.net")
        line, rest = read(record.path).split(b"\n", 1)
        state, digest, text = line.decode().split(" ", 2)
        assert (state, text) == ("A", "1 5 9 hub-1.azure-devices.net dev")
        content = read(record.path)
        assert sha256(content[67 : record.size]).digest().hex() == digest
        assert record.spread == int(digest[:2], 16)
        assert len(content) == SIZE and not content[record.size :].strip(b"\n")
        text = pem(record).decode()
        assert text.count("-----BEGIN CERTIFICATE-----\n") == text.count("-----END CERTIFICATE-----\n") == 2
        assert max([len(line) for line in text.split("\n")]) == 64
        certificates = [part.split("-----END")[0].replace("\n", "") for part in text.split("CERTIFICATE-----\n")[1::2]]
        assert certificates == CHAIN


def test_a_chain_may_be_text_or_a_view_of_an_answer():
    with Folder() as root:
        first = store.save(root, "hub-1", "dev", 5, 9, CHAIN)
        second = store.save(root, "hub-1", "dev", 5, 9, [memoryview(text.encode()) for text in CHAIN])
        assert pem(first) == pem(second)


def test_a_shorter_chain_leaves_nothing_of_a_longer_one():
    with Folder() as root:
        for hub in ("hub-1", "hub-2"):
            use(root, hub, CHAIN * 3)
        record = use(root, "hub-3", CHAIN[:1])
        assert read(record.path).count(b"BEGIN") == 1 and len(read(record.path)) == SIZE


def test_the_record_in_use_is_never_written_over():
    with Folder() as root:
        first = use(root, "hub-1")
        before = read(first.path)
        second = store.save(root, "hub-2", "dev", 6, 10, CHAIN)
        assert second.path != first.path and read(first.path) == before
        assert identities(root) == [(2, "hub-2", False), (1, "hub-1", True)]
        again = store.save(root, "hub-3", "dev", 6, 10, CHAIN)
        assert again.path == second.path and read(first.path) == before
        assert identities(root) == [(3, "hub-3", False), (1, "hub-1", True)]
        store.activate(again)
        assert identities(root) == [(3, "hub-3", True)]
        assert store.save(root, "hub-4", "dev").path == first.path


def test_of_two_that_wait_the_newest_stays():
    with Folder() as root:
        for n in range(1, 5):
            store.save(root, "hub-%d" % n, "dev", 5, 9, CHAIN)
            wanted = [(n, "hub-%d" % n, False), (n - 1, "hub-%d" % (n - 1), False)]
            assert identities(root) == (wanted if n > 1 else wanted[:1])
        store.activate(store.load(root)[1])  # the older one was taken
        assert identities(root) == [(4, "hub-4", False), (3, "hub-3", True)]
        store.activate(store.load(root)[0])
        assert identities(root) == [(4, "hub-4", True)]


def test_what_the_hub_refused_never_comes_back():
    with Folder() as root:
        store.refuse(store.save(root, "hub-1", "dev", 5, 9, CHAIN))
        assert store.load(root) == []
        use(root, "hub-2")
        refused = store.save(root, "hub-3", "dev", 5, 9, CHAIN)
        store.refuse(refused)
        assert identities(root) == [(1, "hub-2", True)]
        record = store.save(root, "hub-4", "dev", 5, 9, CHAIN)
        assert record.path == refused.path and identities(root) == [(2, "hub-4", False), (1, "hub-2", True)]


def test_only_the_state_changes_when_the_hub_has_spoken():
    for mark, state in ((store.activate, b"A"), (store.refuse, b"X")):
        with Folder() as root:
            record = store.save(root, "hub-1", "dev", 5, 9, CHAIN)
            before = read(record.path)
            mark(record)
            assert before[:1] == b"P" and read(record.path) == state + before[1:]


def test_a_damaged_record_is_none():
    with Folder() as root:
        use(root, "hub-1")
        second = use(root, "hub-2")
        good = read(second.path)
        for at in (1, 2, 30, 65, 66, 67, 70, 80, second.size // 2, second.size - 2, second.size - 1):
            for bit in (1, 32, 128):
                bad = bytearray(good)
                bad[at] ^= bit
                write(second.path, bytes(bad))
                assert identities(root)[0][1] == "hub-1", (at, bit)
        for size in (0, 1, 2, 66, 67, 70, 100, second.size // 2, second.size - 1):
            for rest in (b"", b"\n" * 5000, b"\xff" * 5000, b"\0" * 5000):
                write(second.path, good[:size] + rest)
                # A last newline may be that of the padding, too.
                assert identities(root) == [(1, "hub-1", True)] or read(second.path).startswith(good[: second.size])
        write(second.path, good[: second.size])  # the padding does not matter
        assert identities(root)[0][1] == "hub-2"


def test_nothing_that_a_file_may_hold_breaks_loading():
    good = "1 5 9 hub dev\n"
    garbage = [bytes([n]) * size for n in (0, 10, 13, 32, 0x50, 0xFF) for size in (1, 66, 67, 513, SIZE)]
    garbage += [bytes(range(256)) * 40, "P \u00fc\n".encode("utf-8"), b"\xff\xfeP\0 \0", b'{"hub": 1}\n', b"P %s %s\n"]
    with Folder() as root:
        use(root, "hub-1")
        path = root + "identity.b"
        for content in garbage:
            write(path, content)
            assert identities(root) == [(1, "hub-1", True)], content[:80]
        for text in ("", "\n", "1\n", "1 5 9 hub\n", "x 5 9 hub dev\n", "1 5.5 9 hub dev\n", "1 5 9 hub dev more\n"):
            forge(path, text=text)
            assert identities(root) == [(1, "hub-1", True)], text
        forge(path, text="2 5 9 \u00fc \u20ac\n")  # strange, but text
        assert len(store.load(root)) == 1
        forge(path, state="X")
        assert identities(root) == [(1, "hub-1", True)]
        forge(path, text="-1 -5 -9 hub dev\n", rest=b"x" * 9000)
        assert identities(root)[0][1] == "hub-1"
        forge(path, text=good.replace("1", "9" * 40, 1))
        assert store.load(root)[0].sequence == int("9" * 40)
        assert store.save(root, "hub-2", "dev").sequence == int("9" * 40) + 1


def test_a_folder_in_the_place_of_a_file():
    with Folder() as root:
        use(root, "hub-1")
        os.mkdir(root + "identity.b")
        try:
            assert identities(root) == [(1, "hub-1", True)]
            assert raises("store", store.save, root, "hub-2", "dev").step == "certificate"
            assert identities(root) == [(1, "hub-1", True)]
            # where what is in the other one is of no use
            assert store.save(root, "hub-2", "dev", over=True).path == root + "identity.a"
        finally:
            os.rmdir(root + "identity.b")


def test_a_slot_that_cannot_be_written_does_not_take_the_other_one_with_it():
    with Folder() as root:
        os.mkdir(root + "identity.a")
        try:
            assert use(root, "hub-1").path == root + "identity.b"
            before = read(root + "identity.b")
            raises("store", store.save, root, "hub-2", "dev", 5, 9, CHAIN)  # the one in use stays
            assert read(root + "identity.b") == before
            store.refuse(store.load(root)[0])
            assert use(root, "hub-3").path == root + "identity.b"
        finally:
            os.rmdir(root + "identity.a")


def test_a_chain_that_does_not_fit_changes_nothing():
    with Folder() as root:
        use(root, "hub-1")
        use(root, "hub-2")
        before = read(root + "identity.a"), read(root + "identity.b")
        text = "A" * 64
        room = SIZE - 67 - len("3 5 9 hub dev\n") - 54
        e = raises("store", store.save, root, "hub", "dev", 5, 9, [text * (room // 65 + 1)])
        assert e.text == "size"
        assert (read(root + "identity.a"), read(root + "identity.b")) == before
        record = store.save(root, "hub", "dev", 5, 9, [text * (room // 65)])
        assert record.hub == "hub" and len(read(record.path)) == SIZE


def test_a_record_that_cannot_be_written_is_an_error():
    with Folder() as root:
        record = use(root, "hub-1")
        nowhere = root + "missing/"
        assert raises("store", store.save, nowhere, "hub", "dev").step == "certificate"
        record.path = nowhere + "identity.a"
        raises("store", store.activate, record)
        raises("store", store.refuse, record)


def test_a_write_that_does_not_last_is_an_error():
    class Deaf:
        # Takes what it is given and keeps nothing of it.
        def __init__(self, path, mode):
            self.file = open(path, "rb")

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            self.close()

        def close(self):
            self.file.close()

        def write(self, data):
            return len(data)

    with Folder() as root:
        for hub in ("hub-1", "hub-2"):
            use(root, hub)
        store.open = lambda path, mode: open(path, mode) if mode == "rb" else Deaf(path, mode)
        try:
            assert raises("store", store.save, root, "hub-3", "dev").text == "digest"
        finally:
            del store.open
        assert identities(root) == [(2, "hub-2", True)]


def test_a_file_is_made_once_and_then_kept_in_place():
    with Folder() as root:
        write(root + "identity.a", b"\n" * (SIZE + 100))  # made larger by someone
        record = use(root, "hub-1")
        assert record.path == root + "identity.a" and len(read(record.path)) == SIZE + 100
        assert len(read(use(root, "hub-2").path)) == SIZE
        inodes = [os.stat(root + name)[1] for name in ("identity.a", "identity.b")]
        for hub in ("hub-3", "hub-4"):
            use(root, hub)
        assert [os.stat(root + name)[1] for name in ("identity.a", "identity.b")] == inodes


def test_a_record_without_certificate():
    with Folder() as root:
        store.save(root, "hub-1", "dev")
        (record,) = store.load(root)
        assert (record.hub, record.not_before, record.not_after) == ("hub-1", 0, 0)
        assert pem(record) == b"" and b"BEGIN" not in read(record.path)
