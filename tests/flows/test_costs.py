"""Measured costs from a recipe: table, plan under a budget of time, pages, cache."""

import json
from pathlib import Path

import pytest
from layerwright_process import last_line, layerwright
from report.page_reader import Page, check_form
from tiny_checkpoint import write_tiny_inputs

from layerwright.tasks.contracts.costs import CostTable, planned_ratio
from layerwright.tasks.contracts.plan import PassTime
from layerwright.tasks.convert.plan_file import read_plan

TOKENS, RATIO = 64, 0.9
COSTS = ("--set", f"costs={{context_tokens: [{TOKENS}], repeats: 9, decode_tokens: 4}}")
# a removed layer takes no time at all, whatever the machine does meanwhile
CHOICE = (
    *("--set", f"choose.context_tokens={TOKENS}", "--set", "choose.strategies=[{name: remove}]"),
    *("--set", f"choose.selector={{name: milp, decode_seconds_ratio: {RATIO}}}"),
)
LOOSE = (
    *("--set", "finetune=null", "--set", "gate.rules.0.max=1", "--set", "gate.rules.1.max=1000"),
    *("--set", f"evaluate.metrics.2={{name: decode_speed, context_tokens: [{TOKENS}]}}"),
    *("--set", "gate.rules.0.metric=prefill_ms.*", "--set", "gate.rules.0.severity=warn"),
)


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("costs")
    write_tiny_inputs(folder)
    arguments = ("convert", "recipe.yaml", "--json", *COSTS, *CHOICE, *LOOSE)
    result = layerwright(*arguments, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, last_line(result)


def run_folder(folder: Path, summary: dict) -> Path:
    return folder / ".layerwright" / "runs" / summary["run_id"]


def test_the_plan_keeps_the_budget_of_the_table(converted) -> None:
    folder, summary = converted
    assert "measure_costs" in summary["seconds"]
    made = run_folder(folder, summary)
    table = CostTable.model_validate_json((made / "costs.json").read_bytes())
    costs = table.at(TOKENS)
    assert [layer.strategies for layer in costs.layers] == [("keep",), ("remove",)]
    plan = read_plan(made / "plan.yaml")
    assert plan.costs_sha256 == table.sha256
    base = costs.of_model(table.base_specs)
    assert plan.base_time == base
    kept = sum(kind == "keep" for kind in summary["plan"].values())
    layer, outside = costs.layers[0].time, costs.outside.time
    taken = [
        (outside.decode_seconds_per_token + layers * layer.decode_seconds_per_token)
        / base.decode_seconds_per_token
        for layers in range(5)
    ]
    assert kept == max(layers for layers in range(5) if taken[layers] <= RATIO)
    assert planned_ratio(plan).decode == pytest.approx(taken[kept])


def test_the_page_shows_predictions_beside_measurements(converted) -> None:
    folder, summary = converted
    page = Page((run_folder(folder, summary) / "report.html").read_text())
    check_form(page)
    for section, *facts in (
        ("saving", f"{TOKENS} tokens", "base", "ms"),
        ("saving", f"{TOKENS} tokens", "candidate", "ms"),
        ("lineage", "cost table"),
    ):
        assert page.says(*facts, section=section), facts


def test_the_second_run_finds_the_table(converted) -> None:
    folder, summary = converted
    again = last_line(
        layerwright("convert", "recipe.yaml", "--json", *COSTS, *CHOICE, *LOOSE, cwd=folder)
    )
    assert {"measure_costs", "choose", "evaluate"} <= set(again["cache_hits"])
    assert again["plan"] == summary["plan"]
    steps = last_line(
        layerwright("convert", "recipe.yaml", "--dry-run", "--json", *CHOICE, *COSTS,
                    "--set", "costs.repeats=10", cwd=folder)
    )["steps"]  # fmt: skip
    about = {step["step"]: step for step in steps}
    assert (about["profile"]["state"], about["measure_costs"]["state"]) == ("cached", "to do")
    assert about["measure_costs"]["seconds"] is not None
    assert about["choose"]["state"] == "to do"


def test_an_edited_plan_is_predicted_too(converted) -> None:
    folder, summary = converted
    chosen = run_folder(folder, summary) / "plan.yaml"
    plan = read_plan(chosen)
    edited = plan.model_copy(
        update={
            "items": tuple(
                item.model_copy(
                    update={
                        "strategy": "streaming" if item.start == 0 else "keep",
                        "params": {"sinks": 2, "window": 6} if item.start == 0 else {},
                        "predicted_time": None,
                    }
                )
                for item in plan.items
            )
        }
    )
    path = folder / "edited.json"  # which YAML reads
    path.write_text(json.dumps(edited.model_dump(mode="json")))
    result = layerwright(
        *("convert", "recipe.yaml", "--json", "--plan", path.name, *COSTS, *CHOICE, *LOOSE),
        cwd=folder,
    )
    assert result.returncode == 0, result.stderr
    made = run_folder(folder, last_line(result))
    table = CostTable.model_validate_json((made / "costs.json").read_bytes())
    names = [layer.strategies for layer in table.at(TOKENS).layers]
    assert names == [("keep",), ("streaming",), ("remove",)]
    page = Page((made / "report.html").read_text())
    assert page.says(f"{TOKENS} tokens", "candidate", "ms", section="saving")


def test_a_survey_predicts_its_plans(converted) -> None:
    folder, _ = converted
    plans = [f"survey.plans.{name}.context_tokens={TOKENS}" for name in ("dense", "all")]
    sets = [word for one in ("survey.frontier=[]", *plans) for word in ("--set", one)]
    result = layerwright("survey", "recipe.yaml", "--json", *COSTS, *sets, cwd=folder)
    assert result.returncode == 0, result.stderr
    survey = last_line(result)
    rows = survey["selectors"]
    assert rows["dense"]["predicted_decode_seconds_ratio"] == 1
    assert rows["dense"]["predicted_prefill_seconds"] > 0
    made = run_folder(folder, survey)
    costs = CostTable.model_validate_json((made / "costs.json").read_bytes()).at(TOKENS)
    streamed = next(layer for layer in costs.layers if "streaming" in layer.strategies)
    assert PassTime(
        prefill_seconds=rows["all"]["predicted_prefill_seconds"],
        decode_seconds_per_token=rows["all"]["predicted_decode_seconds_per_token"],
    ) == costs.of_model([streamed.spec] * 4)
    assert "predicted_prefill_seconds" not in rows["laziest"], "it is for another length"
    check_form(Page((made / "survey.html").read_text()))
    shown = layerwright("report", survey["run_id"], cwd=folder, COLUMNS="200").stdout
    assert "per token" in shown


def test_a_frontier_of_latency(converted) -> None:
    folder, _ = converted
    changes = (
        "frontier=[0.9, 0.6]",
        "frontier_budget=decode_seconds_ratio",
        "frontier_plan=by_damage",
        f"plans={{by_damage: {{context_tokens: {TOKENS}, strategies: [{{name: remove}}],"
        " selector: {name: milp, kv_bytes_ratio: 1.0}}}",
    )
    sets = [word for one in changes for word in ("--set", f"survey.{one}")]
    result = layerwright("survey", "recipe.yaml", "--json", *COSTS, *sets, cwd=folder)
    assert result.returncode == 0, result.stderr
    survey = last_line(result)
    points = survey["frontier"]
    assert [(row["decode_seconds_ratio"], row["name"]) for row in points] == [
        (0.9, "by_damage at 0.9"), (0.6, "by_damage at 0.6"),
    ]  # fmt: skip
    for row in points:
        assert row["predicted_decode_seconds_ratio"] <= row["decode_seconds_ratio"]
    page = Page((run_folder(folder, survey) / "survey.html").read_text())
    check_form(page)
    assert page.says("time per token", section="table")

    untimed = layerwright("survey", "recipe.yaml", *sets, cwd=folder)
    assert untimed.returncode == 2
    assert "survey.plans.by_damage.selector" in untimed.stderr


@pytest.mark.parametrize(
    ("sets", "remedy"),
    [
        (CHOICE, f"add `costs: {{context_tokens: [{TOKENS}]}}` to the recipe"),
        ((*CHOICE, *COSTS, "--set", "choose.context_tokens=65"), "add 65 to costs.context_tokens"),
    ],
)
def test_a_budget_of_time_without_its_times_starts_nothing(tmp_path: Path, sets, remedy) -> None:
    write_tiny_inputs(tmp_path)
    result = layerwright("convert", "recipe.yaml", *sets, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert remedy in result.stderr
    assert "choose.selector" in result.stderr
    assert not (tmp_path / ".layerwright").exists()
