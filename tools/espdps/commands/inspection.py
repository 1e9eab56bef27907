"""What is in files: `inspect`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from espdps import files
from espdps.commands import output, secrets
from espdps.commands.options import AsJson, PassphraseFile
from espdps.credentials import inspection
from espdps.errors import FAILED, WRONG_USE, ToolError
from espdps.files import STDIN

app = typer.Typer()

_WORDS = {"key_type": "key", "key_sha256": "pub. SHA-256", "sha256": "SHA-256", "sha1": "SHA-1", "bytes": "length"}


@app.command()
def inspect(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files of any kind; - is standard input.")],
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what files hold, and whether it belongs together.

    Keys, CSRs, certificates, chains, PFX and SAS tokens, recognised by content: PEM, DER or base64. Of several files,
    also which key belongs to which certificate or CSR, and whether each chain verifies. It never shows a private value
    or a token's signature.

    \b
    EXAMPLE
      esp-dps inspect device.key device.crt root.crt
      esp-dps sas greenhouse-1 --id-scope 0ne00ABCDEF | esp-dps inspect -

    \b
    EXIT CODE
      1 if anything is wrong: unreadable, expired, a key that belongs to
      nothing, a chain that does not verify or is in the wrong order.

    \b
    PASSPHRASE, if something has one
      From --passphrase-file, else ESPDPS_PASSPHRASE, else a prompt; without
      any, what is encrypted is only named.
    """
    if paths.count(STDIN) > 1:
        raise ToolError("standard input can be read once only", "one - among the files", WRONG_USE)
    problems, sources = [], []
    for path in paths:
        try:
            sources.append(("standard input" if path == STDIN else str(path), files.read(path)))
        except ToolError as error:  # what is wrong with one file is told beside what is in the others
            problems.append(error.line)
    report = inspection.inspect(sources, secrets.opener(passphrase_file, optional=True))
    report.problems[:0] = problems
    if as_json:
        output.print_json(_table(report))
    else:
        _print(report)
    if report.problems:
        raise typer.Exit(FAILED)


def _table(report: inspection.Report) -> dict[str, Any]:
    return {
        "items": [{"file": item.file, "kind": item.kind, **item.facts} for item in report.items],
        "pairs": report.pairs,
        "chains": [asdict(chain) for chain in report.chains],
        "problems": report.problems,
    }


def _print(report: inspection.Report) -> None:
    for item in report.items:
        _line(f"{item.file}: {item.kind}", style="bold")
        for name, text in _rows(item.facts):
            _line(f"  {name:<13} {text}")
    for pair in report.pairs:
        for other in pair["belongs_to"]:
            _line(f"{pair['key']} is the key of {other}", style="green")
    for chain in report.chains:
        if chain.verifies:
            end = "a root" if chain.to_root else "whose issuer is not here"
            _line(f"{' < '.join(chain.path)}: verifies, up to {end}" if len(chain.path) > 1 else _alone(chain), "green")
    for problem in report.problems:
        _line(f"wrong: {problem}", style="red")


def _alone(chain: inspection.Chain) -> str:
    return f"{chain.path[0]}: signed by itself, verifies"


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, value in facts.items():
        if name == "not_before":
            left = facts["days_left"]
            days = f"{left} days left" if left >= 0 else "over"
            rows.append(("valid", f"{value} to {facts['not_after']}, {days}"))
        elif name == "encrypted":
            locked = "key_type" not in facts
            rows.append(("passphrase", "needed to say more" if locked else "yes" if value else "none"))
        elif name == "seconds_left":
            if value > 0:
                rows.append(("time left", f"{value} s"))
        elif name == "use":
            rows.append((name, ", ".join(value) or "not said"))
        elif name not in ("not_after", "days_left"):
            rows.append((_WORDS.get(name, name), "none" if value is None else str(value)))
    return rows


def _line(text: str, style: str = "") -> None:
    """One line; what cannot be printed comes from a file and would act on the terminal."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    output.out.print(safe, style=style, soft_wrap=True)
