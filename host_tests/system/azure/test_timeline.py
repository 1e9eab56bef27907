"""The picture of a provisioning: what it shows is what the board said."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from espdps.azure import timeline
from espdps.board.console import Event, parse
from espdps.paths import ROOT

SVG = "{http://www.w3.org/2000/svg}"
LINES = """
[   0.004] start        esp-dps on UNIX
[   0.100] hub.sent     message <1> & "more"
[   0.104] note         nobody's step
[   2.100] error        hub.poll timeout
""".strip().splitlines()


def drawn(*lines: str) -> ElementTree.Element:
    events = [event for line in lines if (event := parse(line))]
    return ElementTree.fromstring(timeline.svg([timeline.Part("a start", events)]))


def texts(picture: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in picture.iter(f"{SVG}text")]


def test_a_bar_a_step_as_long_as_it_took() -> None:
    picture = drawn(*LINES)
    bars = [rect for rect in picture.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    places = [(float(bar.attrib["x"]), float(bar.attrib["width"])) for bar in bars]
    assert len(places) == 3  # what is no step of the firmware's is not shown
    (_, first), (second_at, second), (third_at, third) = places
    assert first == 2.0 and abs(third / second - 2000 / 96) < 0.1  # the shortest can still be seen
    assert second_at < third_at and abs(second_at + second - third_at) < 0.2
    said = texts(picture)
    assert {"power on", "telemetry", "error"} <= set(said) and any("message <1> &" in text for text in said)


def test_nothing_happened() -> None:
    assert texts(drawn())[0] == "a start: 0 ms"


def test_long_texts_end_within_the_picture() -> None:
    picture = drawn("[   0.500] start        x", f"[   1.000] hub.ready    {'long ' * 100}")
    width = float(picture.attrib["width"])
    for element in picture.iter(f"{SVG}text"):
        end = float(element.attrib["x"]) + (len(element.text or "") * 6.4 if element.get("text-anchor") is None else 0)
        assert end <= width + 1, element.text


def test_the_tracked_one_is_of_a_demo() -> None:
    said = texts(ElementTree.fromstring((ROOT / "docs" / "timeline.svg").read_text()))
    assert {"TLS to DPS", "certificate issued", "TLS to Hub"} <= set(said)
    assert said.count("TLS to DPS") == 1 and said.count("TLS to Hub") == 2


def test_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "t.svg"
    timeline.write(path, [timeline.Part("x", [Event("on a hub", "hub.ready", 1.0)])])
    assert "on a hub" in path.read_text()


def test_what_no_xml_can_hold_is_shown_as_a_question_mark() -> None:
    events = [Event("a\uffff\ud800\x01b <&>", "hub.ready", 1.0)]
    picture = timeline.svg([timeline.Part('x\x02"<&', events)])
    assert "a???b <&>" in str(texts(ElementTree.fromstring(picture.encode())))
