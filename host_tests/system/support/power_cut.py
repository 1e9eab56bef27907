# Runs on real MicroPython: the life of a stored identity on a RAM disk whose power is cut at one block write after the
# other. power_cut.py PLAN, a JSON file that test_power_cut.py writes; prints what it did as JSON, or a traceback and
# status 1 if an identity was lost. What is on the disk it judges by the plan and by hashlib, not by what the store says.
import json
import os
import sys
from binascii import a2b_base64, hexlify
from hashlib import sha256

import vfs
from aziot import store
from aziot.errors import AzureError

ROOT = "/flash/"
# Class of the filesystem, bytes of a block, bytes of the disk
KINDS = {"littlefs": (vfs.VfsLfs2, 4096, 96 * 1024), "fat": (vfs.VfsFat, 512, 64 * 1024)}
ERASED = b"\xff" * 4096


class Disk:
    """A block device that does `left` writes and erasures (None: any number), and then has no power.

    fault "drop": the next write does nothing; "torn": it does its first half; "erased": it does its first half and
    leaves the rest erased; "eio": it and all others fail.
    """

    def __init__(self, data, block, left=None, fault=None):
        self.data = data
        self.block = block
        self.left = left
        self.fault = fault
        self.writes = 0
        self.cut = False
        self.gone = (
            False  # for files that failed to close: the collector tries again, and then nothing can be allocated
        )

    def readblocks(self, number, buffer, offset=0):
        return -5 if self.gone else self._read(number * self.block + offset, buffer)

    def writeblocks(self, number, buffer, offset=None):
        return -5 if self.gone else self._write_blocks(number, buffer, offset)

    def _read(self, at, buffer):
        buffer[:] = memoryview(self.data)[at : at + len(buffer)]

    def _write_blocks(self, number, buffer, offset):
        buffer = memoryview(buffer)
        at = number * self.block
        if offset is not None:
            self._write(at + offset, buffer)
        else:  # whole sectors, which a card or a flash writes one by one
            for n in range(0, len(buffer), self.block):
                self._write(at + n, buffer[n : n + self.block])

    def ioctl(self, what, argument):
        if what == 4:
            return len(self.data) // self.block
        if what == 5:
            return self.block
        if what == 6:
            if self.block == len(ERASED):
                self._write(argument * self.block, ERASED)
            return 0

    def _write(self, at, buffer):
        size = len(buffer)
        if self.writes != self.left:
            self.writes += 1
        else:
            if self.fault == "erased" and not self.cut:
                self.data[at : at + size] = ERASED[:size]
            size = 0 if self.cut or self.fault not in ("torn", "erased") else size // 2
            self.cut = True
            if self.fault == "eio":
                raise OSError(5)
        self.data[at : at + size] = buffer[:size]


def read(path, size=-1):
    with open(path, "rb") as f:
        return f.read(size)


def write(path, content):
    with open(path, "wb") as f:
        f.write(content)


def save(step):
    return store.save(ROOT, step["hub"], step["device_id"], step["not_before"], step["not_after"], step["chain"])


def whole(record, step):
    """Whether the record and its file say what this step of the plan wrote, to the last byte."""
    state, digest, body = read(record.path, record.size).split(b" ", 2)
    return (
        state == (b"A" if record.active else b"P")
        and digest == hexlify(sha256(body).digest())
        and body.split(b"\n", 1)[1] == step["pem"].encode()
        and record.hub == step["hub"]
        and record.device_id == step["device_id"]
        and record.not_before == step["not_before"]
        and record.not_after == step["not_after"]
    )


class Bench:
    def __init__(self, plan):
        self.steps = plan["steps"]
        self.last = plan["last"]
        self.fault = plan["fault"]
        self.files = {name: a2b_base64(content) for name, content in plan["files"].items()}
        self.filesystem, self.block, size = KINDS[plan["filesystem"]]
        disk = Disk(bytearray(size), self.block)
        self.filesystem.mkfs(disk)
        self.mount(disk)
        for name, content in self.files.items():
            write(ROOT + name, content)
        for name in plan["slots"]:
            write(ROOT + name, b"\n" * plan["slot_bytes"])
        vfs.umount(ROOT[:-1])
        self.new = disk.data

    def mount(self, disk):
        vfs.mount(self.filesystem(disk), ROOT[:-1])

    def live(self, disk):
        """Every step, with a restart after each call, until there is no power -> how many were done."""
        done = 0
        try:
            for step in self.steps:
                self.mount(disk)
                try:
                    save(step)
                finally:
                    vfs.umount(ROOT[:-1])
                if disk.cut:
                    break
                self.mount(disk)
                try:
                    record = store.load(ROOT)[0]
                    assert whole(record, step) and not record.active
                    (store.activate if step["accepted"] else store.refuse)(record)
                finally:
                    vfs.umount(ROOT[:-1])
                if disk.cut:
                    break
                done += 1
        except AzureError as e:
            assert disk.cut and e.code == "store", e
        return done

    def cut(self, left=None):
        """A life that ends with so many writes -> how many it had, steps done, the disk as it was left."""
        disk = Disk(bytearray(self.new), self.block, left, self.fault)
        done = self.live(disk)
        assert disk.cut == (left is not None)
        disk.gone = True
        return disk.writes, done, Disk(disk.data, self.block)

    def revive(self, disk, done):
        """The next start: all that has to be there is there, and a new identity can be stored. -> the files found"""
        self.mount(disk)
        try:
            self.judge(done)
            there = {name: read(ROOT + name) for name in os.listdir(ROOT)}
            store.activate(save(self.last))
        finally:
            vfs.umount(ROOT[:-1])
        self.mount(disk)
        try:
            (record,) = store.load(ROOT)
            assert record.active and whole(record, self.last), "the new one is not there"
        finally:
            vfs.umount(ROOT[:-1])
        return there

    def judge(self, done):
        """AssertionError if an identity is lost, damaged or back from refusal, or if another file has changed."""
        found = []
        for record in store.load(ROOT):
            numbers = [n for n, step in enumerate(self.steps) if whole(record, step)]
            assert len(numbers) == 1, "not what was written"
            assert self.steps[numbers[0]]["accepted"] or numbers[0] >= done, "refused, and back"
            found.append((numbers[0], record.active))
        accepted = [n for n in range(done) if self.steps[n]["accepted"]]
        if accepted:
            assert found and found[-1][1] and found[-1][0] >= accepted[-1], "lost"
        assert found == sorted(found, reverse=True) and not [n for n, active in found[:-1] if active], "out of order"
        for name, content in self.files.items():
            assert read(ROOT + name) == content, name


def main(plan):
    bench = Bench(plan)
    writes, done, disk = bench.cut()
    assert done == len(bench.steps)
    bench.revive(disk, done)
    cuts = []
    seen = set()
    for left in range(plan["first"], writes, plan["stride"]):
        try:
            _, done, disk = bench.cut(left)
            there = bench.revive(disk, done)
        except Exception:
            print("after write %d of %d:" % (left, writes))
            raise
        cuts.append(left)
        identities = tuple([there.get(name) for name in ("identity.a", "identity.b")])
        if plan["left"] and identities not in seen:
            seen.add(identities)
            folder = "%s/%d-%d/" % (plan["left"], left, done)
            os.mkdir(folder[:-1])
            for name, content in there.items():
                write(folder + name, content)
    print(json.dumps({"writes": writes, "cuts": cuts}))


with open(sys.argv[1]) as f:
    main(json.load(f))
