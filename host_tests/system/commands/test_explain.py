"""esp-dps explain, and the page that is made of the same table."""

from __future__ import annotations

import pytest
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


# What the services say with a code, and what its explanation has to name: Microsoft's SDKs, REST specifications and az.
SAID = [
    ("400004", "Invalid registration ID", "Unsupported API version", "A Device Registry Namespace is required"),
    ("400012", "CSR", "dps_api"),
    ("400040", "could not verify the CSR"),
    ("403000", "roles", "namespace", "Failed", "retries"),
    ("403001", "suspended"),
    ("403002", "messages of the day", "8,000"),
    ("404103", "not online", "method"),
    ("404", "dps_api", "hub_api"),
    ("405", "dps_api", "hub_api", "withdrawn"),
    ("no-certificate", "namespaceName", "certificateAuthorityName", "certificatePolicyName", "--credential-policy"),
]


@pytest.mark.parametrize("code", [one[0] for one in SAID])
def test_what_a_code_can_mean_is_there(code: str) -> None:
    (words,) = (one[1:] for one in SAID if one[0] == code)
    table = esp_dps("explain", code, "--json").table
    text = " ".join((table["meaning"], *table["causes"], table["remedy"]))
    assert [word for word in words if word not in text] == []
    assert table["refused"]


def test_one_thing_at_a_time() -> None:
    assert esp_dps("explain").code == esp_dps("explain", "404", "--markdown").code == 2


def test_the_page_is_the_table() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    generated = page.partition(BEGIN)[2].partition(END)[0]
    assert generated == markdown() == esp_dps("explain", "--markdown").out, (
        "docs/troubleshooting.md has drifted: put the output of esp-dps explain --markdown between its markers"
    )
    assert markdown().count("### ") == markdown().count("What to do: ") > 40
