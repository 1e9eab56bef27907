"""README and docs/ as text: their blocks, headings, links, and the command lines in them. It runs nothing.

The word after a block's language says what becomes of it (GitHub shows neither):

  sh run          runs, in the page's order, each line as it stands
  sh background   runs in a terminal of its own until the page is read, or until the same is started again
  sh azure        needs a subscription; sh board: a real board; sh setup: installs or takes minutes. These are parsed only
  text shows      what the block before it prints: these lines in this order, an ellipsis for whatever there is
"""

from __future__ import annotations

import enum
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import typer
from typer.core import TyperGroup

from espdps import cli
from espdps.paths import ROOT

MARKS = {"sh": {"run", "background", "azure", "board", "setup"}, "text": {"", "shows"}}
_FENCE = re.compile(r"^ *```([^\n]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`]+)`")
_HEREDOC = re.compile(r"<<-? *'?(\w+)'?(.*?\n)(.*?)^\1$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        language, _, mark = match[1].partition(" ")
        found.append(Block(page, text.count("\n", 0, match.start()) + 1, language, mark, match[2]))
    return tuple(found)


@cache
def prose(page: Path) -> str:
    """The page without its blocks."""
    return _FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """As GitHub makes them: lower case, no punctuation, a dash for each space."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in _HEADING.findall(prose(page))}


def links(page: Path) -> list[str]:
    return _LINK.findall(prose(page))


def code(page: Path) -> list[str]:
    """What stands between single backquotes, each on one line."""
    return [" ".join(words.split()) for words in _CODE.findall(prose(page))]


def commands(script: str) -> Iterator[list[str]]:
    """The words of each command of a shell script; what a here-document holds is none. ValueError if it is no shell."""
    script = _HEREDOC.sub(r"\2", script.replace("\\\n", " "))
    for line in script.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;()<>")
        lexer.commenters = "#"
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if word and set(word) <= set("|&;()"):
                yield words
                words = []
            else:
                words.append(word)
        yield words


def esp_dps_lines(script: str) -> Iterator[list[str]]:
    """What follows `esp-dps` in each command that is one."""
    for words in commands(script):
        if words[:1] == ["esp-dps"]:
            yield words[1 : _redirected(words)]


def _redirected(words: list[str]) -> int:
    return next((at for at, word in enumerate(words) if word and set(word) <= set("<>")), len(words))


def check(words: list[str], whole: bool = True) -> None:
    """Hold a command line against the command itself; ValueError says what is wrong with it.

    whole: it has to have all that the command needs, as what stands in a block does.
    """
    command: Any = typer.main.get_command(cli.app)
    context = typer.Context(command, info_name="esp-dps")
    rest = list(words)
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        inner = command.get_command(context, rest[0])
        if inner is None and rest[0] == "…" and not whole:
            return
        if inner is None:
            raise ValueError(f"{context.command_path}: no command {rest[0]}")
        command, context = inner, typer.Context(inner, parent=context, info_name=rest.pop(0))
    if "--help" in rest:
        return
    if isinstance(command, TyperGroup):
        if whole and rest != ["--version"]:
            raise ValueError(f"{context.command_path}: a command is missing")
        return
    try:
        given, left, _ = command.make_parser(context).parse_args(rest)
    except typer.exceptions.TyperException as error:
        raise ValueError(f"{context.command_path}: {error}") from None
    if left and whole:
        raise ValueError(f"{context.command_path}: {' '.join(left)} is too much")
    for parameter in command.params:
        value = given.get(parameter.name)
        if whole and parameter.required and not value:
            raise ValueError(f"{context.command_path}: {parameter.name} is missing")
        choices = _choices(parameter.type_descriptor.annotation)
        if choices and isinstance(value, str) and value not in choices:
            raise ValueError(f"{context.command_path}: {parameter.name} is one of {', '.join(choices)}, not {value}")


def _choices(annotation: Any) -> list[str]:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return [str(one.value) for one in kind]
    return []
