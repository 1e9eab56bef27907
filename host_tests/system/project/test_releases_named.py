"""Every place that names the oldest MicroPython says what profiles.OLDEST says, and the table of releases is that of the tests."""

from __future__ import annotations

import re

from running import RELEASES

from espdps.devices import profiles
from espdps.paths import BOARDS, ROOT

OLDEST = "{}.{}".format(*profiles.OLDEST)
PAGES = ("README.md", "CHANGELOG.md", "docs/first-board.md", "docs/library.md", "docs/releases.md")


def test_each_page_that_names_it() -> None:
    named = {}
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"), ROOT / "boards" / "README.md"]:
        if found := re.findall(r"MicroPython (\d+\.\d+)(?: or newer|\+)", path.read_text()):
            named[path.relative_to(ROOT).as_posix()] = found
    assert set(PAGES) <= named.keys()
    assert {version for found in named.values() for version in found} == {OLDEST}, named


def test_each_profile() -> None:
    for name in profiles.names(BOARDS):
        profile = profiles.load(name, BOARDS)
        if not profile.circuitpython:
            assert profile.min_version == profiles.OLDEST, name


def test_the_table_of_releases() -> None:
    rows = re.findall(r"^\| ([\d., ]+) \| (\d\.\d) \| (.*) \|$", (ROOT / "docs" / "releases.md").read_text(), re.M)
    table = {releases.split(", ")[0]: umqtt for releases, umqtt, _ in rows}
    assert table == RELEASES
    assert min(table, key=lambda release: int(release.split(".")[1])) == OLDEST
    shims = (ROOT / "tools" / "espdps" / "shims" / "micropython" / "README.md").read_text()
    assert dict(re.findall(r"^\| (\d\.\d\d)[\d., ]* \| (\d\.\d) \|", shims, re.M)) == RELEASES
