"""Queries of the service APIs: which of the records, and which page of them.

Knows no record: it reads the JSON that the API answers with.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import web

from ..errors import ServiceError
from .routes import answer, not_built, read_json

Body = dict[str, Any]

_PAGE = 100  # records, where the client asks for no number
_LARGEST = 1000
# The service's language has more. The az command sends "SELECT *" alone, the SDKs' samples name a collection.
_QUERY = re.compile(r"\s*SELECT\s+\*(?:\s+FROM\s+\w+)?(?:\s+WHERE\s+(?P<where>.+?))?\s*", re.IGNORECASE | re.DOTALL)
_AND = re.compile(r"\s+AND\s+", re.IGNORECASE)
_TERM = re.compile(r"(?P<path>[\w.-]+)\s*(?P<sign>=|!=|<>)\s*(?:'(?P<text>[^']*)'|(?P<other>true|false|-?\d+))")


def selected(text: Any) -> Callable[[Body], bool]:
    """``SELECT * [FROM x] [WHERE path = 'text' AND …]``, a path like ``tags.site``. Raises ServiceError."""
    match = _QUERY.fullmatch(text) if isinstance(text, str) else None
    terms = [_TERM.fullmatch(term) for term in _AND.split(match["where"])] if match and match["where"] else []
    if match is None or None in terms:
        raise ServiceError(400, 400004, "query: SELECT * FROM …, then WHERE name = 'value' AND … is known.")

    def fits(body: Body) -> bool:
        return all((_value(body, term["path"]) == _literal(term)) == (term["sign"] == "=") for term in terms if term)

    return fits


def _literal(term: re.Match[str]) -> Any:
    if term["other"] is None:
        return term["text"]
    return {"true": True, "false": False}.get(term["other"]) if term["other"].isalpha() else int(term["other"])


def _value(body: Any, path: str) -> Any:
    for name in path.split("."):
        body = body.get(name) if isinstance(body, dict) else None
    return body


def everything_or(text: Any) -> Callable[[Body], bool]:
    """As DPS reads a query: what is no SELECT is taken for all (L: end-to-end tests of Microsoft's SDKs, which send
    ``"*"``, or a query within another object). Raises ServiceError for a SELECT that is not known here.
    """
    if not isinstance(text, str) or not text.lstrip().upper().startswith("SELECT"):
        return lambda body: True
    try:
        return selected(text)
    except ServiceError:
        raise not_built("queries beyond SELECT * FROM …, then WHERE name = 'value' AND …") from None


async def page(
    request: web.Request,
    item_type: str,
    records: Iterable[tuple[str, Body]],
    read: Callable[[Any], Callable[[Body], bool]] = everything_or,
    optional: bool = False,
) -> web.Response:
    """A page of ``records`` (key and body), by key, with the service's headers. Raises ServiceError.

    A page goes on behind the last key of the one before: what came or went meanwhile makes no record come twice.
    ``optional``: the body may be missing.
    """
    specification = await read_json(request) if request.can_read_body or not optional else None
    fits = read(specification.get("query") if isinstance(specification, dict) else None)
    size, after = _size(request), _position(request)
    # One more than asked for shows whether there is another page.
    page = [(key, body) for key, body in sorted(records, key=_key) if key > after and fits(body)][: size + 1]
    headers = {"x-ms-item-type": item_type, "x-ms-max-item-count": str(size)}
    if len(page) > size:
        headers["x-ms-continuation"] = base64.b64encode(page[size - 1][0].encode()).decode()
    return answer([body for _, body in page[:size]], headers=headers)


def _key(record: tuple[str, Body]) -> str:
    return record[0]


def _size(request: web.Request) -> int:
    text = request.headers.get("x-ms-max-item-count", "") or str(_PAGE)
    # -1 is "as you like" at the service.
    size = _PAGE if text == "-1" else int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
    if size < 1:
        raise ServiceError(400, 400004, "x-ms-max-item-count: 1 or more.")
    return min(size, _LARGEST)


def _position(request: web.Request) -> str:
    try:
        return base64.b64decode(request.headers.get("x-ms-continuation", ""), validate=True).decode()
    except (binascii.Error, ValueError):
        raise ServiceError(400, 400004, "x-ms-continuation: not one of ours.") from None
