# Whose drive it is: the board's, so that it can keep its identity there, or the PC's, so that files can be copied to
# it. The PC gets it by the button of /board.json (BOOT, mostly): press reset, then at once the button, and hold it
# until the drive appears. (Held during the reset itself, BOOT starts the chip's loader instead.) And always in safe
# mode: press reset again in the second after a reset in which the status LED blinks yellow.
import json

import storage


def pressed():
    import board
    import digitalio

    try:
        with open("/board.json") as f:
            name = json.load(f).get("button")
        if not name:
            return False
        with digitalio.DigitalInOut(getattr(board, name)) as button:
            button.switch_to_input(pull=digitalio.Pull.UP)
            return not button.value
    except (OSError, ValueError, AttributeError):  # nothing flashed yet, or no such button: the PC's
        return True


try:
    if not pressed():
        storage.remount("/", readonly=False)
except RuntimeError:  # it cannot be taken from the PC now
    pass
