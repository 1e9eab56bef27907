# The time of an NTP server (SNTP, RFC 4330) for the real-time clock. Loaded only to set the clock.
# MicroPython's ntptime believes any answer, also that of a server that does not know the time.
from machine import RTC
from micropython import const

from .clock import EPOCH
from .runtime import socket, time

_FIRST = const(1767225600)  # 2026-01-01: this code did not exist before
_LAST = const(2398377600)  # 2046-01-01, which no board with this code will see


def settime(host):
    """OSError if no answer comes within a second; ValueError if it is not to be believed."""
    packet = bytearray(48)
    packet[0] = 0x23  # version 4, client
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.settimeout(1)
        sock.sendto(packet, socket.getaddrinfo(host, 123)[0][-1])
        size = (sock.readinto if hasattr(sock, "readinto") else sock.recv_into)(packet)
    finally:
        sock.close()
    t = unix(packet, size)
    year, month, day, hour, minute, second, weekday = time.gmtime(t - EPOCH)[:7]
    RTC().datetime((year, month, day, weekday + 1, hour, minute, second, 0))


def unix(packet, size=48):
    """Unix time of a server's answer; ValueError if it is not one, or not synchronized, or out of all reason."""
    leap, mode, stratum = packet[0] >> 6, packet[0] & 7, packet[1]
    stamp = int.from_bytes(packet[40:44], "big")
    t = stamp - 2208988800
    if t < _FIRST:
        t += 1 << 32  # the era after 2036
    if not size or size < 48 or leap == 3 or mode != 4 or not 0 < stratum < 16 or not stamp or not _FIRST <= t < _LAST:
        raise ValueError
    return t
