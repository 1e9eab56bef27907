# What a chip keeps while its program starts anew: the clock and the cause of the last reset.
# Only the stand-ins beside this file may import it; firmware never does.
#
# Without any variable set, time is the PC's own and counts from 1970. Environment, all optional:
#   BOARD_EPOCH    year time.time() counts from: 1970 (default) or 2000, as on ESP32
#   BOARD_CLOCK    "unset": nobody has set the clock, it starts at 2000-01-01 now
#   BOARD_HOSTS    "name:port=address:port;..." beside localhost and *.localhost
#   BOARD_ID       machine.unique_id() in hex
#   BOARD_START    script that starts the virtual board; set by it
#   BOARD_RADIO    "1": a name resolves only while WLAN is connected
#   BOARD_RELEASE  release of MicroPython whose frozen modules are stood in for, "1.24" to "1.29" (_release.py)
#   BOARD_WIFI     what an access point does: "" (lets us in), "absent", "wrong" (password), "silent"
#   BOARD_WIFI_KEY, BOARD_WIFI_NAME  the access point's own: another password, or name, is refused, or not found
#   BOARD_WIFI_MS  milliseconds until the link is up or has failed (default 50)
import utime
from micropython import const
from uos import getenv
from ustruct import pack_into, unpack_from

_SECONDS_1970_TO_2000 = const(946684800)
_CAUSE = const(8)

SHIFT = 0 if getenv("BOARD_EPOCH") == "2000" else _SECONDS_1970_TO_2000

# Bytes 0-7: Unix time at which the chip's clock shows 2000-01-01 (double); 8: reset cause; 9, 10: see _run.py of the board;
# from 16 on the radio (network.py), which only a reset in hardware ends.
# The virtual board puts memory here that outlives the process.
memory = bytearray(128)
pack_into("<d", memory, 0, utime.time() if getenv("BOARD_CLOCK") == "unset" else float(_SECONDS_1970_TO_2000))
memory[_CAUSE] = 1


def now():
    # Seconds since 2000-01-01 by the chip's clock.
    return utime.time() - unpack_from("<d", memory)[0]


def set_now(seconds):
    pack_into("<d", memory, 0, utime.time() - seconds)
