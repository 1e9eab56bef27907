"""The stand-ins for what ESP32's firmware freezes, on plain MicroPython of both widths, without a virtual board.

They must show the real modules' habits; no test here may depend on the PC's resolver, clock zone or network.
"""

from __future__ import annotations

import calendar
import datetime
import os
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from espdps.paths import SHIMS

STAND_INS = SHIMS / "micropython"
UNTIL_2000 = 946684800


@pytest.fixture(params=[32, 64])
def micropython(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(f"micropython{request.param}")
    return path


def start(micropython: Path, source: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(micropython), "-c", f"import sys; sys.path.insert(0, {str(STAND_INS)!r})\n{source}"],
        env={"PATH": os.environ["PATH"], "TZ": "America/New_York", **settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def run(micropython: Path, source: str, **settings: str) -> str:
    done = start(micropython, source, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Time


def test_without_settings_time_is_the_pcs(micropython: Path) -> None:
    before = int(time.time())
    out = run(micropython, "import time; print(time.time(), time.time_ns() // 10**9, time.gmtime(0), time.localtime())")
    seconds, second_again, *_ = out.split()
    assert before <= int(seconds) <= int(second_again) <= time.time()
    assert "(1970, 1, 1, 0, 0, 0, 3, 1)" in out
    assert str(datetime.datetime.now(datetime.timezone.utc).year) in out


@pytest.mark.parametrize("epoch", [1970, 2000])
def test_a_clock_that_nobody_has_set(micropython: Path, epoch: int) -> None:
    source = "import time; print(time.time(), time.gmtime()[:3], time.gmtime(0)[:3])"
    out = run(micropython, source, BOARD_EPOCH=str(epoch), BOARD_CLOCK="unset")
    seconds, rest = out.split(" ", 1)
    assert 0 <= int(seconds) - (UNTIL_2000 if epoch == 1970 else 0) < 30
    assert rest == f"(2000, 1, 1) ({epoch}, 1, 1)\n"


@pytest.mark.parametrize("epoch", [1970, 2000])
def test_calendar(micropython: Path, epoch: int) -> None:
    moments = [UNTIL_2000, 951782400, 951868799, 1709251199, 1735689599, 1779840000, 2524607999]
    moments += range(UNTIL_2000, 4 * UNTIL_2000, 86399 * 73)
    source = (
        f"import time\nfor t in {[m - (UNTIL_2000 if epoch == 2000 else 0) for m in moments]}:\n"
        "    print(time.mktime(time.gmtime(t)) == t, *time.gmtime(t))"
    )
    expected = []
    for moment in moments:
        tm = time.gmtime(moment)
        expected.append(f"True {' '.join(map(str, tm[:8]))}")
    assert run(micropython, source, BOARD_EPOCH=str(epoch), BOARD_RELEASE="1.26").splitlines() == expected


@pytest.mark.parametrize(("release", "says"), [("1.25", "OverflowError"), ("1.26", "(2068, 1, 19, 3, 14, 8, 3, 19)")])
def test_the_calendar_of_esp32_ends_with_31_bits_up_to_1_25(micropython: Path, release: str, says: str) -> None:
    # extmod/modtime.c: a machine word with a sign, from 1.26 on a number of 64 bits; it counts from 2000.
    source = "import time\ntry: print(time.gmtime(1 << 31))\nexcept OverflowError: print('OverflowError')"
    assert run(micropython, source, BOARD_EPOCH="2000", BOARD_RELEASE=release) == says + "\n"


def test_the_real_time_clock_sets_time(micropython: Path) -> None:
    source = (
        "import time, machine\nr = machine.RTC()\nr.datetime((2024, 2, 29, 0, 23, 59, 58, 500000))\n"
        "print(r.datetime()[:7], time.gmtime(), time.time(), r.datetime()[7] >= 499999)"
    )
    moment = calendar.timegm((2024, 2, 29, 23, 59, 58)) - UNTIL_2000
    assert run(micropython, source, BOARD_EPOCH="2000") == (
        f"(2024, 2, 29, 3, 23, 59, 58) (2024, 2, 29, 23, 59, 58, 3, 60) {moment} True\n"
    )


@contextmanager
def time_server(seconds_since_1900: int | None) -> Iterator[tuple[int, list[bytes]]]:
    """An SNTP server with a time of its own, or one that is silent; gives its port and what it was sent."""
    requests: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)

        def serve() -> None:
            request, address = server.recvfrom(100)
            requests.append(request)
            if seconds_since_1900 is not None:
                server.sendto(bytes(40) + struct.pack("!II", seconds_since_1900, 1 << 31), address)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], requests
        thread.join()


@pytest.mark.parametrize("epoch", [1970, 2000])
# The second counter of NTP starts anew on 2036-02-07 06:28:16: what is small lies after that.
@pytest.mark.parametrize(
    ("stamp", "text"), [(3_980_000_000, "(2026, 2, 13, 19, 33, 20,"), (600_000_000, "(2055, 2, 11, 17, 8,")]
)
@pytest.mark.parametrize(("release", "first"), [("1.24", 0x1B), ("1.28", 0x1B), ("1.29", 0x23)])
def test_ntptime_sets_the_clock(
    micropython: Path, epoch: int, stamp: int, text: str, release: str, first: int
) -> None:
    with time_server(stamp) as (port, requests):
        source = "import ntptime, time; ntptime.settime(); print(time.gmtime())"
        hosts = f"other:123=127.0.0.1:1;pool.ntp.org:123=127.0.0.1:{port}"
        settings = {"BOARD_EPOCH": str(epoch), "BOARD_HOSTS": hosts, "BOARD_RELEASE": release}
        assert run(micropython, source, BOARD_CLOCK="unset", **settings).startswith(text)
    assert requests == [bytes([first]) + bytes(47)]


def test_ntptime_gives_up(micropython: Path) -> None:
    with time_server(None) as (port, _):
        source = (
            "import ntptime\nntptime.timeout = 0.05\nntptime.host = 'silent.localhost'\n"
            "try: ntptime.settime()\nexcept OSError as e: print(e.errno)"
        )
        assert run(micropython, source, BOARD_HOSTS=f"silent.localhost:123=127.0.0.1:{port}") == "110\n"


# Names and the radio


def test_only_known_names_resolve(micropython: Path) -> None:
    source = (
        "import socket\nfor name in ('localhost', 'hub-1.localhost', '127.0.0.9', 'known', 'notlocalhost', 'example.com', '1.x'):\n"
        "    try: print(name, list(socket.getaddrinfo(name, 80)[0][-1][2:8]))\n    except OSError as e: print(name, e.errno)"
    )
    assert run(micropython, source, BOARD_HOSTS="known:81=127.0.0.1:5;known:80=127.0.0.1:258").splitlines() == [
        "localhost [0, 80, 127, 0, 0, 1]",
        "hub-1.localhost [0, 80, 127, 0, 0, 1]",
        "127.0.0.9 [0, 80, 127, 0, 0, 9]",
        "known [1, 2, 127, 0, 0, 1]",
        "notlocalhost -202",
        "example.com -202",
        "1.x -202",
    ]


@pytest.mark.parametrize(("release", "busy"), [("1.25", "Wifi Internal Error"), ("1.27", "Wifi Internal State Error")])
@pytest.mark.parametrize(("point", "status"), [("", 1010), ("absent", 201), ("wrong", 202), ("silent", 1001)])
def test_a_station_joins_or_fails(micropython: Path, point: str, status: int, release: str, busy: str) -> None:
    source = f"""
import network, socket, time
w = network.WLAN(network.STA_IF)
def tries(what):
    try: what()
    except OSError as e: print(e)
resolve = lambda: print(bool(socket.getaddrinfo('localhost', 80)))
tries(lambda: w.connect('a', 'b'))
print(w.active(), w.active(True), w.status(), w.isconnected())
tries(resolve)
w.connect('a', 'b')
print(w.status(), w.ifconfig()[0])
tries(lambda: w.connect('a', 'b'))
until = time.ticks_add(time.ticks_ms(), 20 if {status} == 1001 else 5000)
while w.status() == network.STAT_CONNECTING and time.ticks_diff(until, time.ticks_ms()) > 0: time.sleep_ms(1)
print(w.status(), w.isconnected(), w.config('ssid'), network.WLAN() is w)
tries(resolve)
if not w.isconnected(): tries(lambda: w.connect('a', 'b'))  # it tries on until it is told not to
w.disconnect()
while w.isconnected(): time.sleep_ms(1)  # in another task
print(w.status(), w.isconnected())
"""
    joined = status == 1010
    settings = {"BOARD_WIFI": point, "BOARD_WIFI_MS": "150", "BOARD_RADIO": "1", "BOARD_RELEASE": release}
    assert run(micropython, source, **settings).splitlines() == [
        "Wifi Internal State Error",
        "False True 1000 False",
        "-202",
        "1001 0.0.0.0",
        busy,
        f"{status} {joined} a True",
        "True" if joined else "-202",
        *([] if joined else [busy]),
        "1000 False",
    ]


def test_an_access_point_with_a_name_and_a_password_of_its_own(micropython: Path) -> None:
    source = """
import network, time
w = network.WLAN(network.STA_IF)
w.active(True)
for name, key in (('other', 'right'), ('ours', 'wrong'), ('ours', 'right')):
    w.disconnect()
    w.connect(name, key)
    while w.status() == network.STAT_CONNECTING: time.sleep_ms(1)
    print(w.status(), w.config('ssid'))
"""
    settings = {"BOARD_WIFI_NAME": "ours", "BOARD_WIFI_KEY": "right", "BOARD_WIFI_MS": "1"}
    assert run(micropython, source, **settings).splitlines() == ["201 other", "202 ours", "1010 ours"]


# machine


def test_pins_and_identity(micropython: Path) -> None:
    source = (
        "import machine\np = machine.Pin(2, machine.Pin.OUT, value=1)\nprint(machine.Pin(2).value(), p(), machine.Pin(4)())\n"
        "p.off(); print(machine.Pin(2)(), machine.Signal(p, invert=True).value(), p)\n"
        "machine.freq(80000000); print(machine.freq(), machine.unique_id(), machine.reset_cause())"
    )
    assert run(micropython, source, BOARD_ID="0200000000ff") == (
        "1 1 0\n0 1 Pin(2)\n80000000 b'\\x02\\x00\\x00\\x00\\x00\\xff' 1\n"
    )


def test_reset_and_watchdog_end_the_process(micropython: Path) -> None:
    assert start(micropython, "import machine\ntry: machine.reset()\nfinally: print('no')").returncode == 202
    hungry = start(micropython, "import machine, time\nw = machine.WDT(timeout=30)\ntime.sleep(20)")
    assert hungry.returncode == -signal.SIGALRM
    fed = "import machine, time\nw = machine.WDT(timeout=2000)\nfor n in range(5): w.feed(); time.sleep_ms(1)\nprint('fed')"
    assert run(micropython, fed) == "fed\n"


# ssl


def test_ssl_starts_without_a_check_and_checks_when_told(micropython: Path, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name.from_rfc4514_string("CN=board.localhost")
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("board.localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "root.der").write_bytes(certificate.public_bytes(serialization.Encoding.DER))
    (tmp_path / "both.pem").write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)

        def serve() -> None:
            for _ in range(3):
                connection, _ = server.accept()
                connection.settimeout(20)
                try:
                    with context.wrap_socket(connection, server_side=True) as stream:
                        stream.sendall(b"hello")
                except OSError:
                    connection.close()  # the client did not trust us

        thread = threading.Thread(target=serve)
        thread.start()
        source = f"""
import ssl, socket
root = {str(tmp_path / "root.der")!r}
def greet(prepare):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    mode = context.verify_mode
    prepare(context)
    s = socket.socket()
    s.connect(socket.getaddrinfo("board.localhost", {server.getsockname()[1]})[0][-1])
    try: print(mode == ssl.CERT_NONE, context.wrap_socket(s, server_hostname="board.localhost").read(5))
    except (OSError, ValueError) as e: print("refused")
def must(context): context.verify_mode = ssl.CERT_REQUIRED
def trust(context): must(context); context.load_verify_locations(cafile=root)
greet(lambda context: None)
greet(must)
greet(trust)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
for key in (root, b"no key"):
    try: context.load_cert_chain(root, key)
    except ValueError as e: print(e)
"""
        out = run(micropython, source)
        thread.join()
    assert out == "True b'hello'\nrefused\nTrue b'hello'\ninvalid key\ninvalid key\n"
