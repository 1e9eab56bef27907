# Runs a board's programs: boot.py and main.py at the start, later what is typed at the prompt.
# It lies in the board's heap while they run, so it holds nothing else.
import gc
import sys

import _chip
from micropython import const

# In _chip.memory, for the next start: 1 comes back to the raw prompt, 2 to the friendly one without running anything.
_PROMPT = const(9)
# There too, for the host: who hears a Ctrl-C. Nobody yet, the program that runs, or the prompt, as a character.
_WHO = const(10)
_PROGRAM = const(1)
_PROMPT_READS = const(2)
_SOFT_RESET = const(5)


def report(error):
    # Without the second line of the traceback: it is this file's frame, which a board does not have.
    try:
        from io import StringIO

        text = StringIO()
        sys.print_exception(error, text)
        head, own, rest = text.getvalue().split("\n", 2)
        if "_run.py" not in own:
            raise ValueError
        sys.stdout.write(head + "\n" + rest)
    except (MemoryError, ValueError):
        sys.print_exception(error)


def soft_reset(prompt=0):
    sys.stdout.write("MPY: soft reboot\n")
    _chip.memory[_PROMPT] = prompt
    # Whatever the program filled the heap with: to leave takes some of it.
    __import__("__main__").__dict__.clear()
    gc.collect()
    __import__("_process").leave(_SOFT_RESET)


def run(main, text, mode="exec", end="", next=False):
    # Runs a program: source as bytes, or a str that names a file. Returns whether it came to its end.
    # With next another one follows, and no moment between them is deaf to Ctrl-C.
    try:
        _chip.memory[_WHO] = _PROGRAM
        if isinstance(text, str):
            execfile(text, main)  # noqa: F821 - a builtin of the unix build
        else:
            exec(compile(str(text, "utf-8"), "<stdin>", mode), main)  # noqa: S102 - what a prompt is for
        _chip.memory[_WHO] = _PROGRAM if next else _PROMPT_READS
        sys.stdout.write(end)
        return True
    except SystemExit:
        _chip.memory[_WHO] = _PROMPT_READS
        sys.stdout.write(end + end)
        soft_reset(end != "")
    except BaseException as error:  # noqa: BLE001 - whatever it is, the prompt shows it
        _chip.memory[_WHO] = _PROMPT_READS
        sys.stdout.write(end)
        report(error)
    return False


def _run_file(main, name, next):
    try:
        open(name).close()
    except OSError:
        return True
    return run(main, name, next=next)


def serve(main):
    prompt = _chip.memory[_PROMPT]
    _chip.memory[_PROMPT] = 0
    gc.collect()
    if prompt < 2:
        try:
            _chip.memory[_WHO] = _PROGRAM
            if _run_file(main, "boot.py", True) and not prompt:
                _run_file(main, "main.py", False)
        except KeyboardInterrupt:
            pass
    _chip.memory[_WHO] = _PROMPT_READS
    from _console import friendly, raw_mode

    del sys.modules["_run"], sys.modules["_console"]
    while True:
        try:
            prompt = (raw_mode if prompt == 1 else friendly)(main)
        except KeyboardInterrupt:
            pass
        except MemoryError as error:
            # The prompt itself found no room, and would find none at its next step either.
            sys.print_exception(error)
            soft_reset(2)
