"""Gates in recipes: what is told before anything starts."""

from pathlib import Path

import pytest
from tiny_checkpoint import write_tiny_inputs

from layerwright.flows.session.preflight import check_recipe
from layerwright.tasks.errors import InputError
from layerwright.tasks.recipe.recipe import load_recipe


def checked(folder: Path, gate: str) -> None:
    path = write_tiny_inputs(folder)
    text = path.read_text()
    start, end = text.index("gate:"), text.index("registry:")
    path.write_text(f"{text[:start]}gate:\n{gate}{text[end:]}")
    recipe, document = load_recipe(path)
    check_recipe(recipe, document, flow="convert")


def test_rules_with_everything_that_they_can_say(tmp_path: Path) -> None:
    checked(
        tmp_path,
        """\
  significance: 0.1
  min_items: 12
  rules:
    - {metric: perplexity.*, max: 1.05, on: bound, slice: positions 0-*}
    - {metric: kv_bytes.1024, max: 1.0, arm: champion, severity: warn}
  waivers:
    - {metric: perplexity.*, author: A. Person, reason: a test, expires: 2026-12-31}
""",
    )


@pytest.mark.parametrize(
    ("gate", "message", "place"),
    [
        ("  tier: standard\n", "needs 2 of perplexity", "gate.tier"),
        ("  tier: perfect\n", "impossible value", "gate.tier"),
        ("  rules:\n    - {metric: recall.*, min: 1}\n", "no metric of", "gate.rules.0.metric"),
        (
            "  rules:\n    - {metric: kv_bytes.*, max: 1.0, arm: control}\n",
            "control arm",
            "gate.rules.0.arm",
        ),
        (
            "  rules: [{metric: kv_bytes.*, max: 1.0}]\n  waivers:\n"
            "    - {metric: recall.*, author: a, reason: b, expires: 2026-12-31}\n",
            "no metric of",
            "gate.waivers.0.metric",
        ),
        (
            "  rules: [{metric: kv_bytes.*, max: 1.0}]\n  waivers:\n"
            "    - {metric: kv_bytes.*, author: a, reason: b}\n",
            "required field is missing",
            "gate.waivers.0.expires",
        ),
        ("  waivers: []\n", "impossible value", "gate"),
    ],
)
def test_what_cannot_be_met_is_told_at_its_place(
    tmp_path: Path, gate: str, message: str, place: str
) -> None:
    with pytest.raises(InputError, match=message) as told:
        checked(tmp_path, gate)
    assert told.value.where.endswith(place)


@pytest.mark.parametrize(
    ("watched", "message", "place"),
    [
        ("{metric: recall.*, min_ratio: 1.0}", "no metric of", "watch.0.metric"),
        ("{metric: kv_bytes.*}", "impossible value", "watch.0"),
        ("{metric: kv_bytes.*, max_ratio: no}", "impossible value", "watch.0.max_ratio"),
    ],
)
def test_what_is_watched_must_be_measured(
    tmp_path: Path, watched: str, message: str, place: str
) -> None:
    path = write_tiny_inputs(tmp_path)
    path.write_text(f"{path.read_text()}watch:\n  - {watched}\n")
    with pytest.raises(InputError, match=message) as told:
        check_recipe(*load_recipe(path), flow="requalify")
    assert told.value.where.endswith(place)


def test_a_requalification_measures_no_control_arm(tmp_path: Path) -> None:
    path = write_tiny_inputs(tmp_path)
    rule = "gate.rules.0={metric: kv_bytes.*, max: 1.0, arm: control}"
    recipe, document = load_recipe(path, [rule, "evaluate.control=true"])
    check_recipe(recipe, document, flow="convert")
    with pytest.raises(InputError, match="requalification"):
        check_recipe(recipe, document, flow="requalify")
