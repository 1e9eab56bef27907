"""Every error line of the tools, found in their own source: what it says, what to do, which exit code.
It reads the source and runs none of it, so a line is in the table as soon as it is in the code."""

from __future__ import annotations

import ast
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

from espdps import errors

PACKAGE = Path(__file__).parent
MAKER = ("espdps.errors", "ToolError")
SOMETHING = "…"  # the words of somebody else: the system, a board, a service

# what a person was at, and the modules whose errors come then; a module in none of them gets its docstring as a title
GROUPS: dict[str, str] = {
    "Files": "errors files roots",
    "Keys, certificates, secrets": "keys formats pfx inspection commands.credentials commands.secrets "
    "commands.inspection",
    "Certificate authorities": "authority commands.authority",
    "Devices: new, doctor, settings": "devices boards settings_toml doctor shred commands.devices",
    "Fleets and bundles": "plan fleet bundle pool commands.fleet",
    "Boards at a port: flash, monitor, doctor": "flash flash_all bindings monitor repl mpy commands.boards",
    "CIRCUITPY drives": "drive drives flash_drive",
    "Issued identities: backup, restore, erase": "identity commands.identity",
    "Registering from the PC, pictures": "registration timeline",
    "Enrollments, hub and registry": "enrollment service_client dps_client hub_client commands.enroll "
    "commands.enroll_target commands.enroll_ca commands.hub commands.registry",
    "Simulator, virtual board, demo": "commands.stand_ins demo demo_drive sim_folder virtual_drive",
    "Explain": "commands.explain",
    "Measuring": "commands.bench bench.contestants bench.cpu bench.heap bench.load bench.unit bench.wire",
}


@dataclass(frozen=True, order=True)
class Message:
    """`text` and each of `hints` with {names} for what is filled in; `where` is module and line of the source."""

    text: str
    hints: tuple[str, ...]
    exit_codes: tuple[int, ...]
    group: str
    where: str

    @property
    def row(self) -> tuple[str, tuple[str, ...], tuple[int, ...]]:
        return self.text, self.hints, self.exit_codes


class _Module:
    """One file: its constants, classes and functions, and what it imported from where."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.parent = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}
        self.values: dict[str, ast.expr] = {}
        self.attributes: dict[str, ast.expr] = {}  # of its classes
        self.classes: dict[str, ast.ClassDef] = {}
        self.functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
        self.imported: dict[str, tuple[str, str]] = {}  # name here -> module, name there
        for node in ast.walk(self.tree):
            match node:
                case ast.ClassDef():
                    self.classes[node.name] = node
                    self.attributes |= _assigned(node.body)
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    self.functions[node.name] = node
                case ast.ImportFrom(module=there) if there or node.level:
                    above = name.split(".")[: -node.level] if path.stem != "__init__" else name.split(".")
                    full = ".".join([*above, *([there] if there else [])]) if node.level else there or ""
                    self.imported |= {alias.asname or alias.name: (full, alias.name) for alias in node.names}
        self.values = _assigned(self.tree.body)

    def function(self, node: ast.AST) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
        """The innermost function around `node`."""
        while node in self.parent:
            node = self.parent[node]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                return node
        return None

    def given(self, node: ast.AST, name: str, function: ast.AST) -> list[ast.expr]:
        """What `name` may have been given on the way to `node`, from the nearest statement back."""
        found: list[ast.expr] = []
        while node is not function:
            parent = self.parent[node]
            for _, body in ast.iter_fields(parent):
                before = body[: body.index(node)] if isinstance(body, list) and node in body else []
                for one in reversed(before):
                    if name in (own := _assigned([one])):
                        return [own[name], *found]
                    inner = [value for part in ast.walk(one) if (value := _assigned([part]).get(name))]
                    found = inner + found
                    if inner and getattr(one, "orelse", None):
                        return found
            node = parent
        return found

    def caught(self, node: ast.AST, name: str) -> list[ast.expr]:
        """The exceptions of which `name` is one at `node`."""
        while node in self.parent:
            node = self.parent[node]
            if isinstance(node, ast.ExceptHandler) and node.name == name and node.type:
                return node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        return []


def _assigned(body: Sequence[ast.AST]) -> dict[str, ast.expr]:
    found: dict[str, ast.expr] = {}
    for node in body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                found[name] = value
    return found


class Source:
    """A package as its files say it is."""

    def __init__(self, folder: Path = PACKAGE, name: str = "espdps") -> None:
        self.modules: dict[str, _Module] = {}
        for path in sorted(folder.rglob("*.py")):
            words = path.relative_to(folder).with_suffix("").parts
            if "on_board" not in words and "peers" not in words:  # they run elsewhere, and import nothing of ours
                full = ".".join([name, *(word for word in words if word != "__init__")])
                self.modules[full] = _Module(full, path)
        self.makers = {MAKER}
        while (
            grown := {
                (module.name, made.name)
                for module in self.modules.values()
                for made in module.classes.values()
                if any(self._origin(module, base) in self.makers for base in made.bases)
            }
            - self.makers
        ):
            self.makers |= grown

    def messages(self) -> Iterator[Message]:
        """One for each text that a maker is called with, in no order."""
        for module in self.modules.values():
            for call in ast.walk(module.tree):
                if isinstance(call, ast.Call) and (maker := self._origin(module, call.func)) in self.makers:
                    assert maker
                    text, hint = (self._argument(call, at, key) for at, key in enumerate(("message", "hint")))
                    texts, hints = self._texts(module, text), self._texts(module, hint)
                    # both chosen in the same branches
                    paired = len(texts) == len(hints) > 1 and isinstance(text, ast.Name) and isinstance(hint, ast.Name)
                    codes, where = self._codes(module, call, maker), f"{module.name}:{call.lineno}"
                    for number, one in enumerate(texts):
                        chosen = hints[number : number + 1] if paired else hints
                        yield Message(one, tuple(chosen), codes, self._group(module), where)

    def _group(self, module: _Module) -> str:
        short = module.name.partition(".")[2]
        for title, names in GROUPS.items():
            if short in names.split():
                return title
        return (ast.get_docstring(module.tree) or short).split("\n")[0].rstrip(".")

    @staticmethod
    def _argument(call: ast.Call, at: int, name: str) -> ast.expr | None:
        if at < len(call.args):
            return call.args[at]
        return next((one.value for one in call.keywords if one.arg == name), None)

    def _origin(self, module: _Module, node: ast.expr) -> tuple[str, str] | None:
        """The module where what `node` names is defined, and its name there."""
        match node:
            case ast.Name(id=name):
                if name in module.imported:
                    where, there = module.imported[name]
                    inner = self.modules.get(where)
                    return inner.imported[there] if inner and there in inner.imported else (where, there)
                return module.name, name
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in module.imported:
                return ".".join(module.imported[name]), attribute
        return None

    def _codes(self, module: _Module, call: ast.Call, maker: tuple[str, str]) -> tuple[int, ...]:
        made = self.modules[maker[0]].classes[maker[1]]
        if maker != MAKER and (own := _super_init(made)):
            module, call = self.modules[maker[0]], own  # a class that has its own arguments gives these
        node = self._argument(call, 2, "exit_code")
        if node is None:
            return (errors.FAILED,)
        function = module.function(call)
        defaults = dict(_defaults(function)) if function else {}
        if function and isinstance(node, ast.Name) and node.id in defaults:  # what its callers say, or what it has
            given = [
                keyword.value
                for other in self.modules.values()
                for one in ast.walk(other.tree)
                if isinstance(one, ast.Call) and self._origin(other, one.func) == (module.name, function.name)
                for keyword in one.keywords
                if keyword.arg == node.id
            ]
            return tuple(sorted({getattr(errors, ast.unparse(one)) for one in [defaults[node.id], *given]}))
        return (int(getattr(errors, ast.unparse(node))),)

    def _texts(self, module: _Module, node: ast.expr | None, depth: int = 0) -> list[str]:
        """All that `node` can be, as far as the source says it; else the name of what it is."""
        found = [""] if node is None else self._found(module, node, depth)
        return list(dict.fromkeys(found))

    def _found(self, module: _Module, node: ast.expr, depth: int) -> list[str]:
        if depth > 6:
            return [self._named(module, node)]

        def again(part: ast.expr, there: _Module = module) -> list[str]:
            return self._texts(there, part, depth + 1)

        match node:
            case ast.Constant(value=value):
                return ["" if value is None else str(value)]
            case ast.JoinedStr(values=parts):
                return [
                    "".join(
                        str(one.value) if isinstance(one, ast.Constant) else self._filled(module, one) for one in parts
                    )
                ]
            case ast.IfExp(body=body, orelse=other):
                return again(body) + again(other)
            case ast.BoolOp(op=ast.Or(), values=[*first, last]):
                return [text for one in first for text in again(one) if text] + again(last)
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                return [before + after for before, after in product(again(left), again(right))]
            case ast.Call(func=ast.Attribute(value=table, attr="get"), args=[_, *default]):
                if entries := self._dictionaries(module, table):
                    found = [f"{key}: {text}" for there, key, one in entries for text in again(one, there)]
                    return found + [text for one in default for text in again(one)]
            case ast.Call(func=ast.Name(id="str"), args=[ast.Name(id=name)]):
                if raised := [text for kind in module.caught(node, name) for text in self._raised(module, kind, depth)]:
                    return raised
            case ast.Call(func=func):
                if answers := self._answers(module, func):
                    return [text for there, one in answers for text in again(one, there)]
            case ast.Name():
                if values := self._bound(module, node):
                    return [text for there, one in values for text in again(one, there)]
        return [self._named(module, node)]

    def _bound(self, module: _Module, node: ast.Name) -> list[tuple[_Module, ast.expr]]:
        """What a name stands for: what its function gave it, else a constant of this module or of another."""
        function = module.function(node)
        if function:
            local = module.given(node, node.id, function)
            if local or node.id in _arguments(function):
                return [(module, one) for one in local]
        origin = self._origin(module, node)
        there = self.modules.get(origin[0]) if origin else None
        return [(there, there.values[origin[1]])] if there and origin and origin[1] in there.values else []

    def _dictionaries(self, module: _Module, node: ast.expr) -> list[tuple[_Module, str, ast.expr]]:
        """Keys and values of a constant dict, of the module or of any class that has one of this name."""
        if isinstance(node, ast.Attribute):
            tables = [(one, one.attributes[node.attr]) for one in self.modules.values() if node.attr in one.attributes]
        else:
            tables = self._bound(module, node) if isinstance(node, ast.Name) else []
        return [
            (there, _key(key), value)
            for there, table in tables
            if isinstance(table, ast.Dict)
            for key, value in zip(table.keys, table.values, strict=True)
        ]

    def _answers(self, module: _Module, func: ast.expr) -> list[tuple[_Module, ast.expr]]:
        """What a function of the package, or a method of this module, returns."""
        if isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name) and func.value.id == "self":
            origin: tuple[str, str] | None = (module.name, func.attr)
        else:
            origin = self._origin(module, func)
        there = self.modules.get(origin[0]) if origin else None
        function = there.functions.get(origin[1]) if there and origin else None
        if not there or not function:
            return []
        return [(there, one.value) for one in ast.walk(function) if isinstance(one, ast.Return) and one.value]

    def _raised(self, module: _Module, kind: ast.expr, depth: int) -> list[str]:
        """The texts with which an exception of the package is raised."""
        origin = self._origin(module, kind)
        return (
            [
                text
                for other in self.modules.values()
                for call in ast.walk(other.tree)
                if isinstance(call, ast.Call) and call.args and self._origin(other, call.func) == origin
                for text in self._texts(other, call.args[0], depth + 1)
            ]
            if origin and origin[0] in self.modules
            else []
        )

    def _filled(self, module: _Module, part: ast.expr) -> str:
        assert isinstance(part, ast.FormattedValue)
        node = part.value
        if isinstance(node, ast.Name) and node.id.isupper():
            known = self._bound(module, node)
            if len(known) == 1 and isinstance(known[0][1], ast.Constant):
                return str(known[0][1].value)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):  # of paths
            return f"{self._half(module, node.left)}/{self._half(module, node.right)}"
        return self._named(module, node)

    def _half(self, module: _Module, node: ast.expr) -> str:
        return node.value if isinstance(node, ast.Constant) else self._named(module, node)  # type: ignore[return-value]

    def _named(self, module: _Module, node: ast.expr) -> str:
        name = _name(node)
        root = next((one.id for one in ast.walk(node) if isinstance(one, ast.Name)), "")
        foreign = (
            name in ("", "error", "reason", "words", "last", "strerror")
            or module.caught(node, root)
            or root == "reason"
        )
        return SOMETHING if foreign else f"{{{name.lower()}}}"


def _key(node: ast.expr | None) -> str:
    match node:
        case ast.Attribute(value=ast.Name(id="errno"), attr=name):
            return os.strerror(getattr(errno, name))
        case ast.Constant(value=value):
            return str(value)
    return SOMETHING


def _super_init(made: ast.ClassDef) -> ast.Call | None:
    for node in ast.walk(made):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__":
            return node
    return None


def _arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    given = function.args
    return {one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)}


def _defaults(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, ast.expr]]:
    for one, value in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        if value:
            yield one.arg, value
    plain = function.args.args
    yield from ((one.arg, value) for one, value in zip(plain[::-1], function.args.defaults[::-1], strict=False))


def _name(node: ast.expr) -> str:
    """A word for what is filled in, out of how it is computed."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.strip("_")
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str() as name), *_]):
            return name
        case ast.Call(func=ast.Name(id=name)) if name.startswith("_"):
            return name.strip("_")
        case ast.Call(func=ast.Attribute(value=ast.Constant()) | ast.Name(), args=[first, *_]):
            return _name(first)
        case ast.Call(func=ast.Attribute(attr=name), args=[_, *_]):
            return name
        case ast.Call(func=ast.Attribute(value=value)):
            return _name(value)
        case ast.Call(func=ast.Name(id=name)):
            return name.strip("_")
        case ast.GeneratorExp(generators=[first, *_]) | ast.ListComp(generators=[first, *_]):
            return _name(first.iter)
        case ast.BoolOp(values=[first, *_]):
            return _name(first)
        case ast.IfExp(body=first) | ast.BinOp(left=first) | ast.Subscript(value=first) | ast.Starred(value=first):
            return _name(first)
    return ""


@cache
def every() -> tuple[Message, ...]:
    """All of them, of this package."""
    return tuple(sorted(Source().messages()))


def markdown() -> str:
    """The table as the part of a page: what a person was at, then each line, once, with what to do."""
    titles = [*GROUPS, *sorted({one.group for one in every()} - GROUPS.keys())]
    parts = []
    told: set[tuple[str, tuple[str, ...], tuple[int, ...]]] = set()
    for title in titles:
        rows = {row: None for one in every() if one.group == title and (row := one.row) not in told}
        told.update(rows)
        if not rows:
            continue
        lines = [f"### {title}\n", "| it says | what to do | exit code |", "| --- | --- | --- |"]
        for text, hints, codes in rows:
            cells = (_code(text), "<br>".join(map(_plain, hints)), " or ".join(map(str, codes)))
            lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _code(text: str) -> str:
    return f"`{text.replace('`', chr(39))}`".replace("|", "\\|")


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "\\<")
