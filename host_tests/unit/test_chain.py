import json

from aziot import chain
from check import read  # noqa: F401 the path to the firmware is set by then

PATH = ("state", "chain")
LONG = "QUJD" * 300


def load(text, *path):
    return chain.loads(text.encode(), *(path or PATH))


def plain(answer):
    """The answer with views as texts."""
    if isinstance(answer, dict):
        return {name: plain(value) for name, value in answer.items()}
    if isinstance(answer, list):
        return [plain(value) for value in answer]
    return str(answer, "utf-8") if isinstance(answer, memoryview) else answer


def test_it_is_json_whatever_is_in_it():
    for value in (
        {"state": {"chain": [LONG, LONG[:304], LONG[4:]], "x": 1}, "y": ["a", 2.5, None, True]},
        {"state": {"chain": [LONG]}, "message": LONG},  # another long text
        {"state": {"chain": ["short"]}, "message": LONG},
        {"state": {"chain": ["", LONG]}},
        {"state": {"chain": LONG}},
        {"state": {"chain": None}, "payload": [LONG]},
        {"state": [LONG]},
        {"chain": [LONG]},
        {"message": LONG + "\u00e9"},
        {"message": 'say "yes" \\' + LONG},
        {"n": [1234567] * 80, "b": "c"},  # long, but no text
        [LONG],
        LONG,
        7,
        {},
    ):
        for text in (json.dumps(value), json.dumps(value, separators=(",", ":")), "  %s\r\n" % json.dumps(value)):
            assert plain(load(text)) == value, text


def test_texts_that_need_unescaping():
    for text in (LONG + "+" + LONG, 'a"' + LONG, LONG + '"b', LONG + "\\" + LONG):
        value = {"state": {"chain": [text, LONG]}}
        assert plain(load(json.dumps(value).replace("+", "\\u002b"))) == value, text


def test_a_plain_chain_stays_where_it_is():
    body = json.dumps({"etag": '"x"', "state": {"chain": [LONG, LONG[8:]]}}).encode()
    found = chain.loads(body, *PATH)["state"]["chain"]
    assert [bytes(text) for text in found] == [LONG.encode(), LONG[8:].encode()]
    assert all(isinstance(text, memoryview) for text in found)
    assert isinstance(load(json.dumps([LONG]), *())[0], str)  # there is nothing at the path


def test_what_is_not_json():
    for body in (
        b"",
        b"x",
        b"{",
        b"[" + b'"' + LONG.encode(),
        b"\xff",
        b'"\xff%s"' % LONG.encode(),
        b'{"a":%s}' % LONG.encode(),
    ):
        try:
            chain.loads(body, *PATH)
        except ValueError:
            continue
        assert body == b"{", body  # MicroPython's parser takes this
