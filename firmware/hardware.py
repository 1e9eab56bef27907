# What differs from board to board: network, LED, watchdog. /board.json says which of them there are.
import gc
import json
import random
import sys

# Tidy early: a heap that fills up first falls into pieces, and a certificate chain wants a large one.
if hasattr(gc, "threshold"):  # CircuitPython has none
    gc.threshold(2048)

from aziot import __version__, clock, stream  # noqa: E402
from aziot.errors import AzureError  # noqa: E402
from aziot.runtime import table, time  # noqa: E402

_ticks = time.ticks_ms()  # at the last line of the log
_uptime = 0  # ms; ticks alone wrap around after days
_failures = [0, 0]  # in a row: of the network, and refusals by the service
_waited = 0  # Unix time when the last wait ended
by_watchdog = False  # whether it was the watchdog that started this program; doctor asks


def _json(path):
    try:
        with open(path) as f:
            return json.load(f)
    except (OSError, ValueError):
        return {}


config = _json("/board.json")


def log(step, text=""):
    """One line a step: seconds since the start, the step, what there is to say, be it the service's words."""
    global _ticks, _uptime
    now = time.ticks_ms()
    _uptime += time.ticks_diff(now, _ticks)
    _ticks = now
    # Nobody else writes lines here. By bytes: a text of one letter, once made, stays in the heap among the names.
    line = bytearray(text[:300].encode())
    for i, c in enumerate(line):
        if c < 32:
            line[i] = 63
    print("[%8.3f] %-12s %s" % (_uptime / 1000, step, str(line, "utf-8")))


def start():
    """Say what runs where. Start the watchdog: every wait feeds it, so it bites when the program hangs or has ended."""
    global by_watchdog
    gc.collect()
    name = config.get("board", sys.platform)
    log("start", "esp-dps %s on %s, %d KB of heap free" % (__version__, name, gc.mem_free() // 1024))
    if config.get("watchdog"):
        import machine

        by_watchdog = machine.reset_cause() == machine.WDT_RESET
        if by_watchdog:
            log("start", "by the watchdog")
        stream.idle = machine.WDT(timeout=config["watchdog"] * 1000).feed


def led(on):
    """Light the LED, if the board has one."""
    if config.get("led") is not None:
        from machine import Pin

        Pin(config["led"], Pin.OUT, value=config["led_on"] if on else 1 - config["led_on"])


def start_network(timeout=30):
    """Join the Wi-Fi of /secrets.json, if not done yet; AzureError "network" after timeout seconds."""
    if config.get("network") != "wifi":
        return
    import network

    try:
        secrets = table("/secrets.json")
        ssid = secrets.get("wifi_ssid", "")
        wlan = network.WLAN(network.STA_IF)
        if wlan.isconnected() and wlan.config("ssid") == ssid:
            return
        wlan.active(True)
        # The connection outlives a soft reset, and while one is tried no other network or password is taken.
        wlan.disconnect()
        while wlan.isconnected() and timeout > 0:
            stream.pause(0.1)
            timeout -= 0.1
        wlan.connect(ssid, secrets.get("wifi_password", ""))
        while not wlan.isconnected():
            if timeout <= 0:
                from aziot.faults import wifi

                raise OSError(wifi(wlan.status()))
            stream.pause(0.1)
            timeout -= 0.1
    except (OSError, ValueError, RuntimeError) as e:
        text = str(e)
        if "0x0101" in text or "Memory" in text:  # ESP_ERR_NO_MEM of ESP-IDF; newer releases call it by its name
            raise AzureError("memory", "network", text)
        raise AzureError("network", "network", text)
    log("network", wlan.ifconfig()[0])


def failed(error, step):
    """Show where step, "app" or "firmware", failed, and wait as after a lost connection."""
    try:
        from sys import print_exception
    except ImportError:  # CircuitPython has it where Python has it
        from traceback import print_exception
    print_exception(error)  # the one place for its text, which may be too long to be made a second time
    error = AzureError(type(error).__name__, step)
    error.retriable = True
    log("error", str(error))
    wait_after(error)


def restart():
    """Begin with a heap in one piece: one that is in many does not mend by itself."""
    import machine

    log("restart", "out of memory")
    stream.pause(20)  # whatever it is that does not fit, the service shall not be asked for it all the time
    machine.reset()


def wait_after(error):
    """Wait as long as the service asked, or longer with every failure of the kind in a row: 2 s to 1 min after one of
    the network, 30 s to 15 min after a refusal by the Hub, else 5 min to an hour. Half of it is random, for a fleet.
    """
    global _waited
    if clock.now() - _waited > 600:  # a good session
        _failures[:] = 0, 0
    first, most = (2, 60) if error.retriable else (30, 900) if error.step == "hub.connect" else (300, 3600)
    kind = not error.retriable
    seconds = min(first << min(_failures[kind], 6), most)
    seconds = max(seconds // 2 + random.getrandbits(12) % (seconds - seconds // 2 + 1), error.retry_after)
    _failures[kind] += 1
    log("wait", "%d s" % seconds)
    stream.pause(seconds)
    if error.code == "memory":
        restart()
    _waited = clock.now()
