"""What is found before a run starts, at its line."""

from pathlib import Path

import pytest
from tiny_checkpoint import write_tiny_inputs

from layerwright.flows.session.preflight import check_recipe
from layerwright.tasks.errors import InputError
from layerwright.tasks.recipe.recipe import load_recipe


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("{name: perplexity, texts: [held-out], rows: 1, row_tokens: 64}", "measured twice"),
        ("{name: perplexity, texts: [nowhere]}", "names the text 'nowhere'"),
        ("{name: piqa, texts: [held-out]}", "reads 'held-out' as items, .* has form text"),
        ("{name: harness, tasks: [a], definitions: train}", "reads 'train' as files"),
    ],
)
def test_metrics_that_cannot_be_measured_side_by_side(
    tmp_path: Path, metric: str, said: str
) -> None:
    path = write_tiny_inputs(tmp_path)
    text = path.read_text()
    path.write_text(text.replace("  metrics:\n", f"  metrics:\n    - {metric}\n", 1))
    recipe, document = load_recipe(path)
    with pytest.raises(InputError, match=said) as raised:
        check_recipe(recipe, document, flow="convert")
    assert raised.value.where.startswith(f"{path}:")
    assert "evaluate.metrics" in raised.value.where


def test_a_frontier_hides_no_wrong_budget_of_its_plan(tmp_path: Path) -> None:
    path = write_tiny_inputs(tmp_path)
    with pytest.raises(InputError, match="less than or equal to 1") as raised:
        load_recipe(path, ["survey.plans.by_damage.selector.kv_bytes_ratio=7"])
    assert "survey.plans.by_damage" in raised.value.where


STREAMING = "{name: streaming, sinks: 4, window: 28}"


@pytest.mark.parametrize(
    ("flow", "strategy", "changed", "place", "said"),
    [
        ("convert", STREAMING, "rows=1", None, None),
        ("convert", STREAMING, "row_tokens=127", "profile.row_tokens", "1 rows of 128"),
        ("survey", STREAMING, "rows=1", None, None),
        ("convert", "{name: linear}", "rows=2", None, None),
        ("convert", "{name: linear}", "rows=1", "profile.rows", "on all 1 rows of the profile"),
        ("survey", "{name: linear}", "rows=1", "profile.rows", "on all 1 rows of the profile"),
    ],
)
def test_a_profile_of_too_few_rows_is_refused_before_the_model_is_fetched(
    tmp_path: Path, flow: str, strategy: str, changed: str, place: str | None, said: str | None
) -> None:
    path = write_tiny_inputs(tmp_path)
    path.write_text(path.read_text().replace(STREAMING, strategy))
    recipe, document = load_recipe(path, [f"profile.{changed}"])
    if said is None:
        check_recipe(recipe, document, flow=flow)
        return
    with pytest.raises(InputError, match=said) as raised:
        check_recipe(recipe, document, flow=flow)
    assert place in raised.value.where
