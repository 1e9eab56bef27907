"""The console's lines read and shown, and every code explained."""

from __future__ import annotations

import io
import re
from datetime import datetime

import pytest
from rich.console import Console

from espdps.board.console import LONGEST_LINE, Display, Event, Fault, Lines, parse
from espdps.explain import codes, explain
from espdps.paths import FIRMWARE

WORDS = """
    clock ntp dns tcp tls-root tls-name tls-date tls-alert tls memory timeout closed protocol connack-1
    connack-2 connack-3 connack-4 connack-5 suback failed disabled no-certificate cert-key cert-name cert-date
    cert-form config key csr too-big message network platform store profile
""".split()
NUMBERS = """
    400004 400012 400207 400208 400209 401000 401002 404201 404202 404203 409203 429001 400006 400037 400040
    403000 403001 403002 403010 404001 404103 409004 409005 412001 429002 500001 503001 400 401 404 405 409 412 415 429 500
""".split()


REFUSALS = {"suback", "failed", "disabled", "no-certificate"}  # and numbers, and connack


@pytest.mark.parametrize("code", WORDS + NUMBERS)
def test_every_code_is_explained(code: str) -> None:
    explanation = explain(code, "dps.register")
    assert code in codes()
    assert explanation.meaning.endswith(".") and explanation.remedy and all(explanation.causes)
    assert explanation.refused == (code.isdigit() or code.startswith("connack") or code in REFUSALS)


def test_every_code_that_the_firmware_has_is_in_that_list() -> None:
    sources = "".join(path.read_text() for path in FIRMWARE.rglob("*.py"))
    raised = set(re.findall(r'AzureError\(\s*"([^"]+)"', sources))
    found = set(
        re.findall(
            r'(?:code = |return |, |else )"([a-z][a-z-]+)"[,)\n]', (FIRMWARE / "aziot" / "faults.py").read_text()
        )
    )
    assert {"timeout", "store", "message", "network"} <= raised and {"tls", "tls-root", "closed", "tcp"} <= found
    assert raised | (found & set(codes())) <= set(WORDS)
    assert raised <= set(codes())


def test_what_the_application_raises_is_explained_as_its_own() -> None:
    assert "app.py" in explain("ValueError", "app").causes[0] and "--app-only" in explain("OSError", "app").remedy


def test_a_number_may_come_as_a_number() -> None:
    assert explain(401000) == explain("401000", "dps.register")


def test_the_step_makes_a_difference() -> None:
    assert "DPS" in explain("connack-5", "dps.connect").meaning
    assert "Hub" in explain("connack-5", "hub.connect").meaning
    assert explain("closed", "hub.poll") != explain("closed", "dps.register")


def test_an_unknown_code_is_no_error() -> None:
    assert explain(401999) == explain("401")
    assert "418001" in explain(418001).meaning and explain(418001).refused
    assert "frobbed" in explain("frobbed").meaning and not explain("frobbed").refused
    assert "4010001" in explain("4010001").meaning and not explain("4010001").refused


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ("[   1.234] dps.register  with a CSR", Event("with a CSR", "dps.register", 1.234)),
        ("[  12.000] app", Event("", "app", 12.0)),
        ("[12345.678] hub.sent     message 1", Event("message 1", "hub.sent", 12345.678)),
        ("Traceback (most recent call last):", Event("Traceback (most recent call last):")),
        ("[1.2] x y", Event("[1.2] x y")),
    ],
)
def test_lines_are_parsed(line: str, event: Event) -> None:
    assert parse(line) == event


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("dps.register 401002 tracking 12-ab No, no", ("dps.register", "401002", "12-ab", "No, no")),
        ("clock ntp no answer from a, b", ("clock", "ntp", "", "no answer from a, b")),
        ("hub.connect connack-5", ("hub.connect", "connack-5", "", "")),
        ("dps.register 500001 tracking 9", ("dps.register", "500001", "9", "")),
    ],
)
def test_errors_are_parsed(text: str, fault: tuple[str, str, str, str]) -> None:
    assert parse(f"[   2.500] error        {text}") == Event(text, "error", 2.5, Fault(*fault))


def test_bytes_are_cut_into_lines_wherever_they_are_split() -> None:
    sent = "[   0.001] start        ä\r\nsecond\r\n>>> ".encode()
    for cut in range(len(sent)):
        lines = Lines()
        assert lines.feed(sent[:cut]) + lines.feed(sent[cut:]) == ["[   0.001] start        ä", "second"]
        assert lines.at_prompt


def test_a_line_without_end_is_cut() -> None:
    assert len(Lines().feed(b"x" * (LONGEST_LINE + 1))) == 1


def test_bytes_that_are_no_text_do_not_stop_it() -> None:
    assert Lines().feed(b"\xff\xfe\n") == ["\ufffd\ufffd"]


def shown(*events: Event, timestamps: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=100, highlight=False, markup=False, force_terminal=False)
    display = Display(console, timestamps=timestamps)
    for event in events:
        display(event)
    return out.getvalue()


def test_an_error_is_shown_with_cause_and_remedy() -> None:
    text = shown(parse("[   2.500] error        dps.register 401000 tracking abc Unauthorized"))
    assert "401000 tracking abc Unauthorized" in text
    explanation = explain("401000")
    for part in (explanation.meaning, explanation.causes[0], explanation.remedy[:40]):
        assert part in text


def test_an_error_that_comes_again_is_explained_once() -> None:
    ntp = parse("[   2.500] error        clock ntp no answer")
    wait, dns = parse("[   2.600] wait         2 s"), parse("[   9.000] error        clock dns pool.ntp.org")
    text = shown(ntp, wait, ntp, wait, ntp)
    assert text.count("clock ntp no answer") == 3 and text.count(explain("ntp").meaning) == 1
    text = shown(ntp, dns, ntp)
    assert text.count(explain("ntp").meaning) == 2 and text.count(explain("dns").meaning) == 1


def test_the_time_of_the_pc_before_each_line() -> None:
    for line in ("[   2.500] wait         2 s", "a print"):
        before = datetime.now().replace(microsecond=0)
        text = shown(parse(line), timestamps=True)
        assert before <= datetime.strptime(text[:19], "%Y-%m-%d %H:%M:%S") <= datetime.now()
        assert text[20:] == line + "\n"


def test_no_explanation_names_a_port_that_may_be_another() -> None:
    for code in codes():
        explanation = explain(code)
        assert "port 8883" not in " ".join([explanation.meaning, *explanation.causes, explanation.remedy])


def test_what_a_board_prints_cannot_steer_the_terminal() -> None:
    (line,) = Lines().feed(b"[   0.001] app \x1b[2J\x1b]0;x\x07[red]\x9b1mtext[/red]\r\n")
    text = shown(parse(line))
    assert not set("\x1b\x07\x9b\x08") & set(text)
    assert "[red]" in text and "[/red]" in text


def test_events_go_to_json_with_their_explanation() -> None:
    table = parse("[   2.500] error        clock ntp no answer").as_json()
    assert table["fault"]["code"] == "ntp" and table["fault"]["explanation"]["remedy"]
    assert parse("[   2.500] start x").as_json()["fault"] is None
