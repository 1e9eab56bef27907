# The partition of a virtual board's filesystem, as littlefs wants it: blocks in one file.
# No method may allocate or branch more than it must: it runs in the middle of the filesystem's own work.
from micropython import const

BLOCK = const(4096)


class Flash:
    def __init__(self, file, blocks):
        self._file = file
        # What ioctl answers: block count and size; there is nothing to start, stop, sync or erase.
        self._facts = (0, 0, 0, 0, blocks, BLOCK, 0)

    def readblocks(self, block, buffer, offset=0):
        self._file.seek(block * BLOCK + offset)
        self._file.readinto(buffer)

    def writeblocks(self, block, buffer, offset=0):
        self._file.seek(block * BLOCK + offset)
        self._file.write(buffer)

    def ioctl(self, what, argument):
        return self._facts[what]
