# The prompts of a virtual board: friendly, paste, raw and raw-paste mode, speaking as ESP32's firmware does
# (shared/runtime/pyexec.c). It must stay small: it lies in the board's heap.
import gc
import sys

from _run import run, soft_reset
from micropython import const

_A = const(1)
_B = const(2)
_C = const(3)
_D = const(4)
_E = const(5)
_WINDOW = const(1024)
_COMPOUND = b" if while for with def class async "

_write = sys.stdout.write
_byte = bytearray(1)


def _read():
    if not sys.stdin.buffer.readinto(_byte):
        sys.exit()
    return _byte[0]


def _take(text, length_to_acknowledge=0):
    # Collects up to Ctrl-D; returns the control character that ended it.
    count = 0
    while True:
        key = _read()
        if key <= _D and key != 0:
            if key != _C or length_to_acknowledge:
                return key
            text[:] = b""
        else:
            text.append(key)
        count += 1
        if count == length_to_acknowledge:
            _write("\x01")
            count = 0


def raw_mode(main):
    _write("raw REPL; CTRL-B to exit\n")
    while True:
        _write(">")
        text = bytearray()
        key = _take(text)
        if key == _B:
            _write("\n")
            return False
        if key == _D:
            _write("OK")
            if not text:
                _write("\n")
                soft_reset(1)
        elif text == b"\x05A":
            _write("R\x01")
            sys.stdout.buffer.write(_WINDOW.to_bytes(2, "little"))
            text[:] = b""
            key = _take(text, _WINDOW)
            _write("\x04")
            if key != _D:
                continue
        else:
            if text[:1] == b"\x05":
                _write("R\x00")
            else:
                _write("\nraw REPL; CTRL-B to exit\n")
            continue
        run(main, text, "exec", "\x04")
        _write("\x04")
        gc.collect()


def _line(prompt):
    # One line with echo and backspace, or the control character that was typed on an empty one.
    _write(prompt)
    text = bytearray()
    while True:
        key = _read()
        if key in (10, 13):
            _write("\n")
            return text
        if key == _C or (1 <= key <= _E and not text):
            return key
        if key in (8, 127):
            if text:
                text[-1:] = b""
                _write("\b \b")
        elif key == 27:
            # Arrows and their kin: Escape, "[", letter.
            _read()
            _read()
        elif key == 9 or key >= 32:
            text.append(key)
            sys.stdout.buffer.write(_byte)


def _goes_on(text):
    # Whether a statement needs more lines: an open bracket, or a block that no empty line has closed.
    depth = 0
    for character in text:
        if character in b"([{":
            depth += 1
        elif character in b")]}":
            depth -= 1
    if depth > 0 or text[-1] == 92:
        return True
    first = bytes(text).split(b"\n", 1)[0].rstrip()
    word = b" " + first.split(b" ", 1)[0] + b" "
    return (first[-1:] == b":" or word in _COMPOUND or first[:1] == b"@") and text[-1] != 10


def _paste(main):
    _write("\npaste mode; Ctrl-C to cancel, Ctrl-D to finish\n=== ")
    text = bytearray()
    while True:
        key = _read()
        if key == _C:
            _write("\n")
            return
        if key == _D:
            _write("\n")
            return run(main, text)
        text.append(10 if key == 13 else key)
        if key == 13:
            _write("\n=== ")
        else:
            sys.stdout.buffer.write(_byte)


def friendly(main):
    from uos import getenv

    firmware = sys.version.split("; ", 1)[1]
    _write('{}; virtual {}\nType "help()" for more information.\n'.format(firmware, getenv("BOARD_NAME")))
    while True:
        text = _line(">>> ")
        while not isinstance(text, int) and text and _goes_on(text):
            more = _line("... ")
            text = more if isinstance(more, int) else text + b"\n" + more
        if text == _A:
            return True
        if text == _B:
            _write("\n")
            return False
        if text == _C:
            _write("\n")
        elif text == _D:
            _write("\n")
            soft_reset()
        elif text == _E:
            _paste(main)
        elif text:
            run(main, text, "single")
