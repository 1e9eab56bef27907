"""Where things are in a checkout of this repository.
Only names: nothing here may create, read or check a file."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIRMWARE = ROOT / "firmware"
BOARDS = ROOT / "boards"
DEVICES = ROOT / "devices"
BUILD = ROOT / "build"
SHIMS = Path(__file__).resolve().parent / "shims"
