"""esp-dps explain, and the page that is made of the same table."""

from __future__ import annotations

from workshop import esp_dps

from espdps.explain import explain, markdown
from espdps.paths import ROOT

BEGIN, END = "<!-- begin: esp-dps explain --markdown -->\n", "<!-- end -->"


def test_a_code_in_hand() -> None:
    done = esp_dps("explain", "401000")
    assert done.code == 0 and explain("401000").meaning in done.out and "What to do:" in done.out
    table = esp_dps("explain", "connack-5", "--step", "hub.connect", "--json").table
    assert (
        table["meaning"] == explain("connack-5", "hub.connect").meaning != explain("connack-5", "dps.connect").meaning
    )


def test_one_thing_at_a_time() -> None:
    assert esp_dps("explain").code == esp_dps("explain", "404", "--markdown").code == 2


def test_the_page_is_the_table() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    generated = page.partition(BEGIN)[2].partition(END)[0]
    assert generated == markdown() == esp_dps("explain", "--markdown").out, (
        "docs/troubleshooting.md has drifted: put the output of esp-dps explain --markdown between its markers"
    )
    assert markdown().count("### ") == markdown().count("What to do: ") > 40
