"""Speed, money and the model card from a recipe: summary, page, registry, export, survey."""

import json
from pathlib import Path

import mlflow
import pytest
from facts import missing
from huggingface_hub import ModelCard
from layerwright_process import ROOT, last_line, layerwright
from report.page_reader import Page, check_form, check_self_contained
from tiny_checkpoint import write_tiny_inputs

from layerwright.tasks.contracts.returns import CostAndReturn
from layerwright.tasks.contracts.run import RunSummary

SPEED = "{name: decode_speed, context_tokens: [64, 256], batches: [1, 2], new_tokens: 4}"
SETS = (
    *("--set", f"evaluate.metrics.2={SPEED}", "--set", "price={device_hour: 2.5, currency: EUR}"),
    *("--set", "finetune=null", "--set", "gate.rules.1.max=1000"),
    # any time at all: what is shown here is that it is judged
    *("--set", "gate.rules.0.metric=latency_p50_ms.256+4.b2", "--set", "gate.rules.0.max=1000"),
)
LOADS = [(64, 4, 1), (64, 4, 2), (256, 4, 1), (256, 4, 2)]


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("returns")
    write_tiny_inputs(folder)
    (folder / "model" / "README.md").write_text("---\nlicense: mit\n---\nA tiny model.\n")
    result = layerwright("convert", "recipe.yaml", "--json", *SETS, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "profiler_start" not in result.stderr, "the profiler's own lines would break the bars"
    return folder, last_line(result)


def test_the_summary_has_crossovers_and_money(converted) -> None:
    _, printed = converted
    summary = RunSummary.model_validate(printed)
    assert {(one.timed, one.new_tokens, one.batch) for one in summary.crossovers} == {
        (timed, new, batch)
        for timed, new in (("prefill", 0), ("decode", 0), ("request", 4))
        for batch in (1, 2)
    }
    candidate, base = (summary.metrics[arm] for arm in ("candidate", "base"))
    [request] = [c for c in summary.crossovers if (c.timed, c.batch) == ("request", 2)]
    name = "latency_p50_ms.256+4.b2"
    assert request.measured[1] == (256, pytest.approx(candidate[name] / base[name]))
    cost = summary.cost
    assert cost.price.currency == "EUR"
    assert [(w.prompt_tokens, w.new_tokens, w.batch) for w in cost.workloads] == LOADS
    assert cost.conversion == pytest.approx(sum(cost.device_seconds.values()) * 2.5 / 3600)
    assert {"fetch", "profile", "convert", "evaluate"} <= set(cost.device_seconds)
    assert cost.untimed == ()
    assert candidate[name] <= candidate["latency_p95_ms.256+4.b2"]
    assert candidate["peak_memory_bytes.256.b2"] > candidate["peak_memory_bytes.64"]


def test_the_page_shows_them(converted) -> None:
    text = Path(converted[1]["report"].removeprefix("file://")).read_text()
    check_form(Page(text))
    check_self_contained(text)
    page = Page(text)
    assert page.says("EUR", "million tokens", section="returns")
    assert page.says("256 + 4", "2", section="returns")


def test_a_person_is_told_in_a_sentence(converted) -> None:
    folder, summary = converted
    shown = layerwright("report", summary["run_id"], cwd=folder, COLUMNS="200").stdout
    assert not missing(shown, "256", "4", "EUR")


def test_a_second_run_knows_what_the_first_one_cost(converted) -> None:
    folder, first = converted
    second = last_line(layerwright("convert", "recipe.yaml", "--json", *SETS, cwd=folder))
    assert "evaluate" in second["cache_hits"]
    was, now = (CostAndReturn.model_validate(run["cost"]) for run in (first, second))
    for step in ("profile", "evaluate"):  # their results say how long they took
        assert now.device_seconds[step] == pytest.approx(was.device_seconds[step], rel=0.5)
    assert now.untimed == ("fetch", "choose", "convert", "export")


def test_a_month_has_hours_money_and_versions(converted) -> None:
    folder, first = converted
    files = sorted((folder / ".layerwright" / "runs").glob("*/summary.json"))
    done = [json.loads(file.read_text()) for file in files]
    (month,) = last_line(layerwright("spending", "--json", cwd=folder))["months"]
    assert sum(month["runs"].values()) == len(done)
    hours = sum(
        seconds
        for run in done
        for step, seconds in run["seconds"].items()
        if step not in ("gate", "register", "report")
    )
    assert sum(month["device_hours"].values()) == pytest.approx(hours / 3600)
    assert month["money"] == {"EUR": pytest.approx(hours * 2.5 / 3600)}
    assert (month["unpriced_hours"], month["unknown"]) == (0, [])
    assert month["versions"] == ["tiny-hybrid/1"], "found again is not made again"
    assert first["run_id"][-20:-14] == month["month"].replace("-", "")
    shown = layerwright("spending", "--month", month["month"], cwd=folder, COLUMNS="200").stdout
    assert "EUR" in shown
    assert "tiny-hybrid/1" in shown


def test_the_version_has_card_and_money(converted) -> None:
    folder, _ = converted
    client = mlflow.MlflowClient(f"sqlite:///{folder}/.layerwright/mlflow.db")
    (version,) = client.search_model_versions("name='tiny-hybrid'")
    assert version.tags["layerwright.price_device_hour"] == "2.5 EUR"
    assert version.tags["layerwright.conversion_cost"].endswith(" EUR")
    there = {info.path for info in client.list_logged_model_artifacts(
        version.tags["layerwright.model_id"])}  # fmt: skip
    assert {"README.md", "cost.json"} <= there


@pytest.mark.parametrize("by_run", [True, False])
def test_an_export_has_its_card(converted, by_run: bool) -> None:
    folder, summary = converted
    tree = summary["checkpoint"]["uri"].removeprefix("file://")
    name, out = (summary["run_id"], "named") if by_run else (tree, "bare")
    result = layerwright("export", name, "--to", "transformers", "--out", out, cwd=folder)
    assert result.returncode == 0, result.stderr
    card = ModelCard.load(folder / out / "README.md")
    assert card.data.license == "mit"
    assert card.data.base_model == "local:model"
    assert "streaming" in card.data.tags
    assert ("**Accepted**" in card.text) == by_run
    assert ("EUR" in card.text) == by_run
    if by_run:
        assert summary["checkpoint"]["sha256"] in card.text
        written = folder / ".layerwright" / "runs" / name / "README.md"
        assert card.data.to_dict() == ModelCard.load(written).data.to_dict()


def test_a_slower_candidate_is_rejected_for_its_latency(converted) -> None:
    folder, _ = converted
    result = layerwright(
        "convert", "recipe.yaml", "--json", *SETS, "--set", "gate.rules.0.max=0.000001", cwd=folder
    )
    assert result.returncode == 3, result.stderr
    summary = last_line(result)
    assert len(summary["failed_checks"]) == 1
    assert summary["failed_checks"][0].startswith("latency_p50_ms.256+4.b2: ")
    rejected = folder / ".layerwright" / "runs" / summary["run_id"] / "README.md"
    assert not missing(rejected.read_text(), "Rejected", "gate")


def test_the_shipped_recipe_compares_its_two_plans(tmp_path: Path) -> None:
    """recipes/smollm2-latency.yaml on the tiny model, with shorter prompts."""
    write_tiny_inputs(tmp_path)
    sets = [
        "model.source=local:model",
        "data.docs-calibration={source: 'local:calibration.txt'}",
        "data.docs-held-out={source: 'local:held-out.txt'}",
        "profile.row_tokens=64",
        *(f"survey.plans.{name}.selector.layers=[[0, 1], 3]" for name in ("streaming", "local")),
        "survey.plans.streaming.strategies.0.window=28",
        "survey.plans.local.strategies.0.spans=28",
        "survey.metrics.0.row_tokens=256",
        "survey.metrics.1.prompt_tokens=[400]",
        "survey.metrics.3.context_tokens=[64, 256]",
    ]
    words = [word for one in sets for word in ("--set", one)]
    recipe = str(ROOT / "recipes" / "smollm2-latency.yaml")
    result = layerwright(
        "survey", recipe, "--json", "--set", f"data_root={tmp_path}", *words, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    survey = last_line(result)
    assert set(survey["selectors"]) == {"streaming", "local"}
    for row in survey["selectors"].values():
        assert row["currency"] == "USD"
        assert [(c["prompt_tokens"], c["new_tokens"]) for c in row["costs"]] == [
            (64, 16), (256, 16),
        ]  # fmt: skip
        latency = row["metrics"]["latency_p50_ms.256+16"]
        paid = row["costs"][1]["request"]["candidate"]
        assert paid == pytest.approx(latency / 1e3 * 0.1 / 3600 / 272 * 1e6)
        assert {one["timed"] for one in row["crossovers"]} == {"prefill", "decode", "request"}
        assert row["metrics"]["latency_p95_ms.256+16"] >= latency
    shown = layerwright("report", survey["run_id"], cwd=tmp_path, COLUMNS="200").stdout
    assert not missing(shown, "local", "256 + 16 tokens", "batch 1")
    check_form(Page(Path(survey["report"].removeprefix("file://")).read_text()))
