# The interpreter's sockets, but every name is this machine, which on a board the network's resolver would say.
from usocket import *
from usocket import getaddrinfo as _getaddrinfo


def getaddrinfo(host, port):
    return _getaddrinfo("127.0.0.1", port)
