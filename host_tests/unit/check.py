"""The few things that tests need and that MicroPython has too. It must never import pytest."""

import os

from aziot.errors import AzureError


def raises(code, function, *args, **kwargs):
    """Call it; assert that AzureError with this code, or one of them, comes, and return it."""
    try:
        function(*args, **kwargs)
    except AzureError as e:
        assert e.code == code or isinstance(code, tuple) and e.code in code, "expected %r, got %r: %s" % (code, e.code, e)
        return e
    raise AssertionError("no AzureError %r" % code)


class Folder:
    """A folder for one test: with Folder() as root, whose name ends in "/". Takes all it holds with it."""

    made = 0

    def __enter__(self):
        Folder.made += 1
        base = os.getenv("TMPDIR") or "/tmp"
        self.root = "%s/aziot-%d-%d/" % (base, id(self) % 1000000007, Folder.made)
        os.mkdir(self.root[:-1])
        return self.root

    def __exit__(self, *exc):
        for name in os.listdir(self.root):
            os.remove(self.root + name)
        os.rmdir(self.root[:-1])


def write(path, content):
    with open(path, "wb" if isinstance(content, bytes) else "w") as f:
        f.write(content)


def read(path):
    with open(path, "rb") as f:
        return f.read()
