"""A board that lives on the PC: real MicroPython behind a pseudo-terminal that mpremote, unmodified, talks to.

It must behave as a board does where the two could differ for a program, and must never outlive the one who runs it.
"""

from espdps.virtual_board.board import VirtualBoard, main

__all__ = ["VirtualBoard", "main"]
