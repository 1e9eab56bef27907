"""README and docs/ hold: each command is one that there is, and those that need neither Azure nor a board work as they
stand, in their order; whatever is named exists."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import manual
import pytest
import reading
from manual import Block

from espdps.devices import settings
from espdps.paths import FIRMWARE, ROOT
from espdps.simulator.trouble.actions import ACTIONS, PLACES

PAGES = manual.pages()
BLOCKS = [block for page in PAGES for block in manual.blocks(page)]
DOCS = ROOT / "docs"
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[reading.Reader]:
    reader = reading.Reader(tmp_path_factory.mktemp("reader") / "esp-dps")
    yield reader
    reader.close()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.mark in ("run", "background") for block in manual.blocks(page))],
    ids=lambda page: page.stem,
)  # fmt: skip
def test_a_reader_who_copies_every_command_gets_there(page: Path, reader: reading.Reader) -> None:
    reader.read(page)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "sh"], ids=str)
def test_commands_are_those_that_there_are(block: Block) -> None:
    assert block.mark in manual.MARKS["sh"], f"{block}: {block.mark!r} says nothing"
    for words in manual.esp_dps_lines(block.text):
        try:
            manual.check(words)
        except ValueError as error:
            pytest.fail(f"{block}: {error}")


@every_page
def test_commands_named_in_a_sentence_exist(page: Path) -> None:
    for words in manual.code(page):
        # what has no esp-dps in it is none of its commands, and need not be a shell's words
        for line in manual.esp_dps_lines(words) if "esp-dps" in words else ():
            try:
                manual.check(line, whole=False)
            except ValueError as error:
                pytest.fail(f"{page.name}: `{words}`: {error}")


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("esp-dps flash greenhouse-1 --prot /dev/ttyUSB0", "--prot"),
        ("esp-dps flush greenhouse-1", "flush"),
        ("esp-dps ca rot x", "rot"),
        ("esp-dps new --board UNIX", "registration_id"),
        ("esp-dps hub call --sim build/sim bench-1 led 1 2", "2"),
        ("esp-dps keygen a.key --key-type ec-p385", "ec-p385"),
        ("esp-dps new a --board UNIX && esp-dps flsh a # a comment", "flsh"),
        ("esp-dps sim \\\n  --dri x", "--dri"),
    ],
)
def test_a_command_that_is_wrong_is_found(line: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wrong)):
        for words in manual.esp_dps_lines(line):
            manual.check(words)


@pytest.mark.parametrize(
    ("said", "shows", "missing"),
    [
        ("a  1\nb 2\nc", "a 1\nc", ""),
        ("a\nb", "b\na", "a"),
        ("until 2026-12", "until …", ""),
        ("one two", "one … three", "one … three"),
        ("a.c", "abc", "abc"),
        ("\x1b[1mbold\x1b[0m", "bold", ""),
        ("a", "a\na", "a"),
    ],
)
def test_what_is_not_shown_is_found(said: str, shows: str, missing: str) -> None:
    assert reading.lacks(said, shows) == missing


def test_a_command_that_fails_is_found(reader: reading.Reader, tmp_path: Path) -> None:
    page = reader.folder / "docs" / "broken.md"
    page.write_text("```sh run\ntrue\n```\n```text shows\nsomething\n```\n")
    # a page of the copy has no name relative to the checkout, which only its report would need
    block = Block(ROOT / "docs" / "broken.md", 1, "sh", "run", "true\nfalse\ntrue\n")
    with pytest.raises(AssertionError, match="broken.md:1 ended with 1"):
        reader._run(block, "")
    with pytest.raises(AssertionError, match="does not show 'something'"):
        reader._run(Block(block.page, 1, "sh", "run", "true"), "something")


@every_page
def test_blocks_say_what_they_are(page: Path) -> None:
    last = None
    for block in manual.blocks(page):
        assert block.language, f"{block} has no language"
        if block.language in manual.MARKS:
            assert block.mark in manual.MARKS[block.language], f"{block}: {block.mark!r} says nothing"
        if block.mark == "shows":
            assert last and last.mark in ("run", "background"), f"{block} follows nothing that prints"
        if block.language == "json":
            json.loads(block.text)
        if block.language == "python":
            ast.parse(block.text)
        last = block


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in manual.links(page):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in manual.anchors(target), f"{page.name}: {link}"


def test_readme_leads_to_every_page() -> None:
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in manual.links(ROOT / "README.md")}
    assert {page for page in PAGES if page.parent == DOCS} <= linked


@every_page
def test_pages_of_docs_begin_with_what_they_are_for(page: Path) -> None:
    if page.parent == DOCS:
        title, _, first, *_ = page.read_text().splitlines()
        assert title.startswith("# ") and first.startswith("After reading this"), page.name


_TOP = "firmware host_tests tools boards docs .ci".split()


@every_page
def test_files_that_are_named_exist(page: Path) -> None:
    for words in manual.code(page):
        if words.split("/")[0] in _TOP and "/" in words and re.fullmatch(r"[\w./*-]+", words):
            found = list(ROOT.glob(words.rstrip("/")))
            assert found, f"{page.name}: `{words}`"


@every_page
def test_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = manual.code(page) + [" ".join(words) for block in manual.blocks(page) if block.language == "sh"
                                 for words in manual.commands(block.text)]  # fmt: skip
    for words in named:
        if match := re.match(r"make ([a-z]+)", words):
            assert match[1] in targets, f"{page.name}: {words}"


def _rows(page: Path, heading: str) -> list[list[str]]:
    """Of the first table below this heading: cells of each row."""
    text = manual.prose(page).split(f"# {heading}\n", 1)[1]
    lines = [line for line in text.split("\n#", 1)[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def _codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def _class(module: str, name: str) -> ast.ClassDef:
    tree = ast.parse((FIRMWARE / "aziot" / f"{module}.py").read_text())
    return next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name)


def test_settings_are_those_of_the_firmware() -> None:
    of_firmware = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in _class("identity", "Identity").body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    described = {}
    for names, default, *_ in _rows(DOCS / "settings.md", "device.json"):
        value = default.partition("; ")[0].strip("`")  # after it comes what the tools write
        for name in _codes(names):
            described[name] = json.loads(value) if value[:1] in ("[", '"') else value
    assert list(described) == list(of_firmware), "another setting, or another order"
    for name, value in of_firmware.items():
        if name in settings.SETTINGS and not settings.SETTINGS[name].needed:
            expected = {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
            assert str(described[name]) == str(expected), f"default of {name}"


def test_modules_are_those_of_the_firmware() -> None:
    described = {
        name for cell, *_ in _rows(DOCS / "how-it-works.md", "The firmware's modules") for name in _codes(cell)
    }
    assert described == {path.stem for path in (FIRMWARE / "aziot").glob("*.py")} - {"__init__"}


def test_the_session_of_the_documents_is_the_sessions() -> None:
    known = {name for module, one in (("hub", "Session"), ("device", "Device")) for name in _names(_class(module, one))}
    pages = [page for page in PAGES if page.name in ("README.md", "application.md")]
    named = {
        name
        for page in pages
        for text in [*manual.code(page), *(block.text for block in manual.blocks(page) if block.language == "python")]
        for name in re.findall(r"\b(?:session|session\.device)\.([a-z_]+)", text)
    }
    assert len(named) > 8 and named <= known, named - known
    described = {name for cell, *_ in _rows(DOCS / "application.md", "The session") for name in _codes(cell)}
    public = {name for name in _names(_class("hub", "Session")) if not name.startswith("_")}
    public -= {"open", "cloud", "mqtt", "record", "stream", "events", "renew_at"}  # not for applications
    assert {re.split(r"[(. ]", name.removeprefix("session."))[0] for name in described} >= public


def _names(one: ast.ClassDef) -> set[str]:
    """Methods and attributes of a class."""
    found = {node.name for node in one.body if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(one):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            found.add(node.attr)
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name) and node in one.body}
    return found


def test_places_and_actions_are_those_of_the_simulator() -> None:
    places = {name for cell, *_ in _rows(DOCS / "simulator.md", "Places") for name in _codes(cell)}
    actions = {name for cell, *_ in _rows(DOCS / "simulator.md", "Actions") for name in _codes(cell)}
    assert places == set(PLACES) and actions == set(ACTIONS)
