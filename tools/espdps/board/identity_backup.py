"""The identity on a board: its issued certificates saved and put back, and everything secret removed.
Never puts an identity onto a board that is another device or has another private key, and saves no private key."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from espdps.board.flash import BLANK_SLOT, ISSUED, LIBRARY, OWNER, PUBLIC, SECRET, SLOT_BYTES
from espdps.board.repl import Board
from espdps.devices import bindings
from espdps.errors import ToolError, of_system
from espdps.files import read

FORMAT = "esp-dps identity 1"
_BLANK = b"\n" * SLOT_BYTES


@dataclass(frozen=True)
class Slot:
    """A stored identity as the firmware writes it (store.py): `state` is P(ending), A(ctive) or X, refused by the Hub;
    `not_after` is Unix time, in seconds, 0 without a certificate; `chain` is PEM, the leaf first, or empty."""

    content: bytes
    state: str
    sequence: int
    not_after: int
    hub: str
    device_id: str
    chain: bytes


def parse(content: bytes) -> Slot | None:
    """The identity in the content of a slot; None if it is blank, half written or damaged."""
    record = content.partition(b"\n\n")[0].rstrip(b"\n") + b"\n"
    head, _, chain = record.partition(b"\n")
    try:
        state, digest, *numbers, hub, device_id = head.decode().split(" ")
        sequence, _, not_after = (int(number) for number in numbers)
    except ValueError:
        return None
    if hashlib.sha256(record[67:]).hexdigest() != digest or state not in ("P", "A", "X"):
        return None
    return Slot(content, state, sequence, not_after, hub, device_id, chain)


def owner(board: Board) -> dict[str, Any]:
    """Whose board it is, the settings OWNER of its device.json; empty if it is nobody's."""
    if "/device.json" not in board.survey(["/device.json"], LIBRARY):
        return {}
    try:
        config = json.loads(board.fs_readfile("/device.json"))
        return {name: config[name] for name in OWNER}
    except (ValueError, KeyError, TypeError):
        return {}


def backup(board: Board, file: Path) -> Slot:
    """Save what was issued to a board in `file`, which must not be there yet, mode 0600. The identity in use.

    Raises ToolError if there is none.
    """
    whose = _owner(board)
    slots = _read(board)
    newest = _newest(slots)
    if not newest:
        raise ToolError("the board has no issued identity", "it gets one when it has registered at DPS")
    _check_key(board, slots)
    table = {
        "format": FORMAT,
        "made": int(time.time()),
        "chip_id": board.about().chip_id,
        "owner": whose,
        "slots": {name: slot.content.rstrip(b"\n").decode() if slot else None for name, slot in slots.items()},
    }
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
            opened.write(json.dumps(table, indent=2) + "\n")
    except FileExistsError:
        raise ToolError(f"{file} is there already", "take another name: a backup is never overwritten") from None
    except OSError as error:
        raise of_system(error, file) from None
    return newest


def read_backup(file: Path) -> tuple[dict[str, Any], dict[str, Slot | None]]:
    """Whose identity it is (OWNER), and the slots of a backup, each checked by its digest. Raises ToolError."""
    try:
        table = json.loads(read(file))
        if table["format"] != FORMAT:
            raise ValueError
        whose = {name: table["owner"][name] for name in OWNER}
        texts = {name: table["slots"][name] for name in ISSUED}
    except (ValueError, RecursionError, KeyError, TypeError):
        raise ToolError(f"{file} is no backup of an identity", "esp-dps backup makes one") from None
    slots: dict[str, Slot | None] = dict.fromkeys(ISSUED)
    for name, text in texts.items():
        if text is None:
            continue
        slots[name] = parse((str(text).encode() + b"\n\n").ljust(SLOT_BYTES, b"\n"))
        if not slots[name] or len(text) > SLOT_BYTES - 2:
            raise ToolError(f"{file}: {name} is damaged: its digest is another", "take another backup")
    if not _newest(slots):
        raise ToolError(f"{file} holds no identity", "take another backup")
    return whose, slots


def restore(board: Board, file: Path, *, force: bool = False) -> Slot:
    """Put back what `backup` saved. Raises ToolError, and writes nothing, if the board is another device or has another
    private key, or, without `force`, a newer identity."""
    whose, slots = read_backup(file)
    here = _owner(board)
    for name in OWNER:
        if here[name] != whose[name]:
            raise ToolError(
                f"the board's {name} is {here[name]}, and {file} is for {whose[name]}",
                "an identity goes back onto its own device only",
            )
    _check_key(board, slots)
    newest, there = _newest(slots), _newest(_read(board))
    assert newest
    if there and there.sequence > newest.sequence and not force:
        hint = "--force puts the older one back"
        raise ToolError(f"the board has a newer identity, until {date(there.not_after)}", hint)
    # The one in use last: until it is written the board has the one it had.
    for name, slot in sorted(slots.items(), key=lambda item: item[1] is newest):
        content = slot.content if slot else _BLANK
        board.fs_writefile(f"/{name}", content)
        if board.survey([f"/{name}"], LIBRARY)[f"/{name}"].sha256 != hashlib.sha256(content).hexdigest():
            raise ToolError(f"{name} arrived damaged on the board", "try again, with another cable or port")
    return newest


def erase(board: Board, devices: Path) -> list[str]:
    """Remove keys, settings and identity from a board, keep its firmware, free its chip. Returns what was removed."""
    there = board.survey([f"/{name}" for name in SECRET + ISSUED + PUBLIC], LIBRARY)
    removed = [name for name in there if name[1:] in SECRET + ISSUED + PUBLIC]
    for name in removed:
        board.fs_rmfile(name)
    if devices.is_dir():
        bindings.forget(devices, board.about().chip_id)
    return removed


def date(seconds: int) -> str:
    """Unix time as a person reads it, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds)) if seconds else "no end"


def _owner(board: Board) -> dict[str, Any]:
    whose = owner(board)
    if not whose:
        raise ToolError("the board carries no device", "flash it first: esp-dps flash DEVICE --port PORT")
    return whose


def _read(board: Board) -> dict[str, Slot | None]:
    there = board.survey([f"/{name}" for name in ISSUED], LIBRARY)
    return {
        name: parse(bytes(board.fs_readfile(f"/{name}")))
        if f"/{name}" in there and there[f"/{name}"] != BLANK_SLOT
        else None
        for name in ISSUED
    }


def _newest(slots: dict[str, Slot | None]) -> Slot | None:
    valid = [slot for slot in slots.values() if slot and slot.state != "X"]
    return max(valid, key=lambda slot: slot.sequence, default=None)


def _check_key(board: Board, slots: dict[str, Slot | None]) -> None:
    """Raises ToolError if a certificate is not for the board's private key, by the CSR that belongs to it."""
    chains = [slot.chain for slot in slots.values() if slot and slot.chain]
    if not chains:
        return
    try:
        request = x509.load_der_x509_csr(bytes(board.fs_readfile("/device.csr")))
        mine = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for chain in chains:
            leaf = x509.load_pem_x509_certificates(chain)[0]
            if leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != mine:
                raise ToolError("the certificate is not for the board's private key", "let the board register anew")
    except (OSError, ValueError):
        raise ToolError("the board's device.csr or the certificate cannot be read", "flash the board anew") from None
