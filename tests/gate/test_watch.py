"""Bands around the ratio to the base, the champion or the figure at registration."""

import pytest
from facts import says
from gate.evidence import CHAMPION, evidence, plain
from pydantic import ValidationError

from layerwright.tasks.gate.watch import find_alarms
from layerwright.tasks.recipe.gate import WatchRule


def alarms(registered: dict | None = None, **rule) -> list[tuple[str, float | None, str]]:
    report, _ = evidence(crowned=CHAMPION)
    report = plain(report, "base", a__x=2.0, a__y=1.0, zero=0.0, lost=1.0)
    report = plain(report, "candidate", a__x=3.0, a__y=1.1, zero=1.0, lost=None)
    report = plain(report, "champion", a__x=3.0, a__y=2.2)
    found = find_alarms(report, [WatchRule(**rule)], registered or {})
    return [(alarm.metric, alarm.ratio, alarm.reason) for alarm in found]


def test_inside_the_band_there_is_no_alarm() -> None:
    assert alarms(metric="a.*", min_ratio=1.0, max_ratio=1.5) == []


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"metric": "a.*", "max_ratio": 1.2}, [("a.x", 1.5, "above 1.2")]),
        ({"metric": "a.*", "against": "champion", "min_ratio": 0.9}, [("a.y", 0.5, "below 0.9")]),
        (
            {"metric": "a.x", "against": "registered", "max_ratio": 1.1},
            [("a.x", 1.2, "above 1.1")],
        ),
        (
            {"metric": "a.y", "against": "registered", "max_ratio": 1.1},
            [("a.y", None, "the registered figure is missing")],
        ),
        ({"metric": "zero", "max_ratio": 1}, [("zero", None, "the ratio to 0 is not finite")]),
        (
            {"metric": "lost", "max_ratio": 1},
            [("lost", None, "the version's own figure is missing")],
        ),
        (
            {"metric": "none.*", "max_ratio": 1},
            [("none.*", None, "no measurement matches this name")],
        ),
    ],
)
def test_what_left_it_or_is_not_known_does(rule: dict, expected: list) -> None:
    found = alarms({"a.x": 2.5}, **rule)
    assert [(m, r if r is None else pytest.approx(r), w) for m, r, w in found] == expected


def test_a_champion_that_is_not_there_is_no_alarm() -> None:
    report, _ = evidence()
    report = plain(report, "candidate", x=1.0)
    assert find_alarms(report, [WatchRule(metric="x", against="champion", max_ratio=1)], {}) == ()


def test_a_band_has_an_edge() -> None:
    with pytest.raises(ValidationError, match=says("min_ratio", "max_ratio")):
        WatchRule(metric="x")
