"""The commands, driven as a user drives them."""

import shlex
import shutil
from importlib import metadata
from pathlib import Path

import pytest
from facts import missing
from layerwright_process import last_line, layerwright
from report.page_reader import Page, check_form
from tiny_checkpoint import write_tiny_inputs

from layerwright.flows.session.preflight import check_plan
from layerwright.tasks.offload.offload import load_streamed


@pytest.fixture(scope="module")
def accepted(tmp_path_factory) -> tuple[Path, dict]:
    """One accepted run, that the tests of this module look at."""
    folder = tmp_path_factory.mktemp("accepted")
    write_tiny_inputs(folder)
    result = layerwright("convert", "recipe.yaml", "--json", cwd=folder, embedded=True, begun=True)
    assert result.returncode == 0, result.stderr
    return folder, last_line(result)


def test_an_accepted_run_is_registered_with_its_report(accepted) -> None:
    _, summary = accepted
    assert summary["decision"] == "accepted"
    assert summary["registered"] == {
        "name": "tiny-hybrid",
        "version": "1",
        "alias": "challenger",
        "model_type": "layerwright",
        "found": False,
    }
    assert set(summary["plan"]) == {"0", "1", "2", "3"}
    assert set(summary["plan"].values()) == {"keep", "streaming"}
    assert summary["metrics"]["candidate"]["kv_bytes.1024"] < (
        0.6 * summary["metrics"]["base"]["kv_bytes.1024"]
    )
    assert summary["cache_hits"] == []
    assert {"fetch", "profile", "choose", "convert", "finetune", "evaluate"} <= set(
        summary["seconds"]
    )
    page = Path(summary["report"].removeprefix("file://")).read_text()
    assert summary["run_id"] in page
    checkpoint = Path(summary["checkpoint"]["uri"].removeprefix("file://"))
    assert (checkpoint / "manifest.json").is_file()


def test_the_training_left_its_metrics_in_mlflow(accepted) -> None:
    folder, summary = accepted
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/.layerwright/mlflow.db")
    experiment = client.get_experiment_by_name("layerwright")
    runs = client.search_runs([experiment.experiment_id], "tags.`layerwright.step` = 'finetune'")
    assert [run.info.run_name for run in runs] == [f"{summary['run_id']} finetune"]
    points = client.get_metric_history(runs[0].info.run_id, "logit_kl")
    assert [point.step for point in points] == [1, 2, 3, 4, 5, 6]


def test_the_second_run_is_cached_and_finds_its_registration(accepted) -> None:
    folder, first = accepted
    second = last_line(layerwright("convert", "recipe.yaml", "--json", cwd=folder))
    assert second["cache_hits"] == [
        "fetch", "profile", "choose", "convert", "finetune", "evaluate", "export",
    ]  # fmt: skip
    assert second["registered"] == first["registered"] | {"found": True}
    assert second["checkpoint"] == first["checkpoint"]
    assert second["metrics"] == first["metrics"]
    assert second["run_id"] != first["run_id"]


def test_memory_for_one_layer_gives_the_same_run(accepted) -> None:
    folder, first = accepted
    with load_streamed(folder / "model", resident_layers=1) as streamed:
        least = streamed.peak_resident_bytes
        assert len(streamed.residency.streamed) > 1
    bounds = (f"compute.default.memory={least}", f"compute.steps.evaluate.memory={2 * least}")
    sets = [word for bound in bounds for word in ("--set", bound)]
    result = layerwright("convert", "recipe.yaml", "--json", "--home", "bounded", *sets, cwd=folder)
    assert result.returncode == 0, result.stderr
    summary = last_line(result)
    assert summary["plan"] == first["plan"]
    assert summary["checkpoint"]["sha256"] == first["checkpoint"]["sha256"]
    assert summary["metrics"] == first["metrics"]


def test_a_tighter_gate_rejects_without_a_version(accepted) -> None:
    folder, first = accepted
    ratio = (
        first["metrics"]["candidate"]["kv_bytes.1024"] / first["metrics"]["base"]["kv_bytes.1024"]
    )
    result = layerwright(
        "convert", "recipe.yaml", "--json", "--set", f"gate.rules.0.max={ratio * 0.99}", cwd=folder
    )
    assert result.returncode == 3, result.stderr
    summary = last_line(result)
    assert summary["decision"] == "rejected"
    assert summary["registered"] is None
    assert any("kv_bytes.1024" in check for check in summary["failed_checks"])
    page = Path(summary["report"].removeprefix("file://")).read_text()
    assert "kv_bytes.1024" in page
    assert "ejected" in page
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/.layerwright/mlflow.db")
    assert len(client.search_model_versions("name='tiny-hybrid'")) == 1


def test_runs_and_report_and_dry_run(accepted) -> None:
    folder, summary = accepted
    listed = last_line(layerwright("runs", "--json", cwd=folder))["runs"]
    assert listed[0]["run_id"] == summary["run_id"]
    assert listed[0]["state"] == "accepted"
    shown = last_line(layerwright("report", summary["run_id"], "--json", cwd=folder))
    assert shown["report"] == summary["report"]
    before = {p for p in (folder / ".layerwright").rglob("*") if p.is_file()}
    steps = last_line(layerwright("convert", "recipe.yaml", "--dry-run", "--json", cwd=folder))
    states = {step["step"]: step["state"] for step in steps["steps"]}
    assert states["evaluate"] == "cached"
    assert states["gate"] == "to do"
    changed = last_line(
        layerwright(
            "convert",
            "recipe.yaml",
            "--dry-run",
            "--json",
            "--set",
            "finetune.stages.0.steps=7",
            cwd=folder,
        )
    )
    states = {step["step"]: step["state"] for step in changed["steps"]}
    assert (states["convert"], states["finetune"]) == ("cached", "to do")
    assert {p for p in (folder / ".layerwright").rglob("*") if p.is_file()} == before


def test_a_runs_checkpoint_is_found_by_its_name(accepted) -> None:
    folder, summary = accepted
    found = last_line(layerwright("inspect", summary["run_id"], "--json", cwd=folder))
    assert found["checkpoint"] == summary["checkpoint"]["uri"].removeprefix("file://")
    layers = {i for run in found["layer_map"] for i in range(run["start"], run["stop"])}
    assert layers == {0, 1, 2, 3}
    result = layerwright("export", "latest", "--to", "transformers", "--out", "out", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert (folder / "out" / "layerwright_modeling.py").is_file()


def test_an_edited_plan_is_used(accepted) -> None:
    folder, summary = accepted
    chosen = folder / ".layerwright" / "runs" / summary["run_id"] / "plan.yaml"
    edited = folder / "plan.yaml"
    edited.write_text(chosen.read_text().replace("window: 28", "window: 20"))
    assert layerwright("plan", "validate", "plan.yaml", cwd=folder).returncode == 0
    difference = layerwright("plan", "diff", str(chosen), "plan.yaml", cwd=folder).stdout
    assert "window" in difference
    result = layerwright("convert", "recipe.yaml", "--plan", "plan.yaml", "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    other = last_line(result)
    assert other["checkpoint"]["sha256"] != summary["checkpoint"]["sha256"]
    assert other["registered"]["version"] == "2"
    edited.write_text(chosen.read_text().replace("strategy: streaming", "strategy: steaming", 1))
    result = layerwright("plan", "validate", "plan.yaml", cwd=folder)
    assert result.returncode == 2
    assert "plan.yaml:" in result.stderr
    assert "steaming" in result.stderr


def test_a_tree_that_was_deleted_is_made_again(accepted) -> None:
    folder, first = accepted
    shutil.rmtree(first["checkpoint"]["uri"].removeprefix("file://"))
    second = last_line(layerwright("convert", "recipe.yaml", "--json", cwd=folder))
    again = ["fetch", "profile", "choose", "convert", "evaluate", "export"]
    assert second["cache_hits"] == again, "all but finetune"
    assert second["checkpoint"] == first["checkpoint"]
    assert Path(first["checkpoint"]["uri"].removeprefix("file://")).is_dir()


@pytest.fixture(scope="module")
def surveyed(accepted) -> tuple[Path, dict]:
    folder, _ = accepted
    metrics = (
        "survey.metrics=[{name: perplexity, texts: [held-out], rows: 4, row_tokens: 128},"
        " {name: divergence, texts: [held-out], rows: 4, row_tokens: 128}]"
    )
    stability = (
        "survey.stability={text: train, held_out: [held-out, train], rows: 2, row_tokens: 128}"
    )
    sets = ("--set", metrics, "--set", stability)
    result = layerwright("survey", "recipe.yaml", "--json", *sets, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, last_line(result)


def test_survey_compares_selectors(surveyed) -> None:
    _, survey = surveyed
    assert list(survey["selectors"]) == ["dense", "laziest", "by_damage", "all"]
    perplexity = {n: row["metrics"]["perplexity"] for n, row in survey["selectors"].items()}
    assert all(value > 1 for value in perplexity.values())
    assert set(survey["selectors"]["all"]["plan"].values()) == {"streaming"}
    assert [row["kv_bytes_ratio"] for row in survey["frontier"]] == [0.8, 0.6]
    rows = [*survey["selectors"].values(), *survey["frontier"]]
    for row in rows:
        low, high = row["intervals"]["perplexity"]
        assert low < row["metrics"]["perplexity"] < high
        assert row["intervals"]["perplexity.held-out"] == [low, high]
        assert "kl_p99.held-out" not in row["intervals"]  # which has none
        assert row["kl_nats"] == row["metrics"]["kl_mean.held-out"]
    by_damage, dense = survey["selectors"]["by_damage"], survey["selectors"]["dense"]
    assert dense["kl_nats"] == 0 < by_damage["kl_nats"]
    assert dense["predicted_kv_bytes_ratio"] == 1
    assert by_damage["predicted_kv_bytes_ratio"] <= 0.6
    assert by_damage["predicted_language_nats"] != 0 == dense["predicted_language_nats"]
    assert survey["missing"] == []


def test_plans_are_chosen_again_from_a_second_text(surveyed) -> None:
    folder, survey = surveyed
    found = survey["stability"]
    assert found["texts"] == ["calibration", "train"]
    assert found["held_out"] == ["held-out", "train"]
    assert list(found["plans"]) == list(survey["selectors"])
    for name, row in found["plans"].items():
        first = survey["selectors"][name]["plan"]
        assert check_plan(Path(row["second_plan_file"])).summary() == row["second_plan"]
        pairs = [(first[layer], strategy) for layer, strategy in row["second_plan"].items()]
        assert row["same_strategy"] == sum(a == b for a, b in pairs) / 4
        for on in found["held_out"]:
            here, there = (row["damage"][on][text] for text in found["texts"])
            assert (here == there) == (first == row["second_plan"]), "equal plans measure equally"
    everything = found["plans"]["all"]
    assert everything["jaccard"] == everything["same_strategy"] == 1
    held_out, train = (everything["damage"][on]["calibration"] for on in found["held_out"])
    assert held_out["kl_mean"]["value"] > 0
    assert held_out != train
    assert found["plans"]["dense"]["damage"]["train"]["train"]["perplexity_ratio"]["value"] == 1
    page = Page(Path(survey["report"].removeprefix("file://")).read_text())
    assert page.says("train", "calibration", section="stability")
    shown = layerwright("report", survey["run_id"], cwd=folder, COLUMNS="240").stdout
    assert not missing(shown, "train", "calibration")


def test_every_plan_of_a_survey_is_a_file_that_runs(surveyed) -> None:
    folder, survey = surveyed
    rows = [*survey["selectors"].values(), *survey["frontier"]]
    assert len({row["plan_file"] for row in rows}) == len(rows)
    for row in rows:
        assert check_plan(Path(row["plan_file"])).summary() == row["plan"]
    point = survey["frontier"][0]
    assert Path(point["plan_file"]).name == "by_damage-at-0.8.yaml"
    program, *arguments = shlex.split(point["command"])
    assert program == "layerwright"
    limits = ("--set", "gate.rules.0.max=0.9")
    result = layerwright(*arguments, *limits, "--json", cwd=folder.parent)
    assert result.returncode == 0, result.stderr
    summary = last_line(result)
    assert summary["plan"] == point["plan"]
    assert "profile" in summary["cache_hits"]


def test_the_page_of_a_survey_is_found(surveyed) -> None:
    folder, survey = surveyed
    page = Page(Path(survey["report"].removeprefix("file://")).read_text())
    check_form(page)
    for row in [*survey["selectors"].values(), *survey["frontier"]]:
        assert row["command"] in page.text
    shown = layerwright("report", survey["run_id"], cwd=folder, COLUMNS="200").stdout
    low, high = survey["selectors"]["all"]["intervals"]["perplexity.held-out"]
    assert f"{low:.4g} to {high:.4g}" in shown
    assert survey["frontier"][1]["command"] in shown
    assert survey["report"] in shown
    again = last_line(layerwright("report", survey["run_id"], "--json", cwd=folder))
    assert again == survey


def test_the_control_arm_is_measured(accepted) -> None:
    folder, first = accepted
    command = ("convert", "recipe.yaml", "--json", "--set", "evaluate.control=true")
    result = layerwright(*command, cwd=folder)
    assert result.returncode == 0, result.stderr
    metrics = last_line(result)["metrics"]
    control, base = (metrics[arm]["perplexity.held-out"] for arm in ("control", "base"))
    assert control != base
    assert metrics["control"]["kv_bytes.1024"] == metrics["base"]["kv_bytes.1024"]
    assert metrics["candidate"] == first["metrics"]["candidate"]
    kl_alone = "finetune.stages.0.objectives=[{name: logit_kl}]"
    result = layerwright(*command, "--set", kl_alone, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "model still equals the base" in result.stderr
    metrics = last_line(result)["metrics"]
    control, base = (metrics[arm]["perplexity.held-out"] for arm in ("control", "base"))
    assert control == base


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("finetune:", "finetine:", ("finetine", "finetune")),
        ("  rows: 4\n", "  rows: many\n", ("profile.rows", "integer")),
        ("kv_bytes_ratio: 0.6}\nfine", "kv_bytes: 0.6}\nfine", ("kv_bytes", "kv_bytes_ratio")),
        ("name: milp, kv", "name: magic, kv", ("magic", "milp")),
        ("texts: [held-out], rows", "texts: [elsewhere], rows", ("elsewhere", "held-out")),
        ("metric: perplexity.*", "metric: perplexiti.*", ("perplexiti", "perplexity.held-out")),
        ("train.txt", "absent.txt", ("data.train.source", "absent.txt")),
    ],
)
def test_bad_recipes_start_nothing(tmp_path: Path, old: str, new: str, expected) -> None:
    recipe = write_tiny_inputs(tmp_path)
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new, 1))
    line = text[: text.index(old)].count("\n") + 1
    embedded = old == "train.txt"  # the last that could be wrong: no server is begun before it
    result = layerwright("convert", "recipe.yaml", cwd=tmp_path, embedded=embedded)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    for part in (f"recipe.yaml:{line}:", *expected):
        assert part in result.stderr
    assert not (tmp_path / ".layerwright").exists()


def test_too_little_disk_starts_nothing(tmp_path: Path, monkeypatch) -> None:
    from layerwright.flows.session.sources import check_disk
    from layerwright.tasks.errors import InputError
    from layerwright.tasks.home import Home

    usage = shutil.disk_usage(tmp_path)
    with pytest.raises(InputError, match="disk"):
        check_disk(Home(tmp_path / "not-yet" / "home"), usage.free + usage.total)


def test_methods_and_doctor(tmp_path: Path) -> None:
    listed = last_line(layerwright("methods", "--json", cwd=tmp_path))
    assert {"keep", "streaming"} <= set(listed["strategies"])
    assert {"laziness", "sensitivity", "trsp_scale"} <= set(listed["profilers"])
    assert {"lightransfer", "milp", "nll_delta", "angular"} <= set(listed["selectors"])
    assert {"perplexity", "recall"} <= set(listed["metrics"])
    assert "llama" in listed["families"]
    result = layerwright("doctor", "--json", cwd=tmp_path)
    states = {c["check"]: c["state"] for c in last_line(result)["checks"]}
    assert result.returncode == 0, result.stdout
    assert "broken" not in states.values()


def test_help_names_every_command(tmp_path: Path) -> None:
    shown = layerwright("--help", cwd=tmp_path).stdout
    headings = ["Build", "Judge", "Serve", "Registry", "Housekeeping"]
    places = [shown.index(f"─ {heading} ─") for heading in headings]
    assert places == sorted(places)
    for command in ("convert", "survey", "resume", "runs", "report", "methods", "doctor", "plan",
                    "export", "inspect", "--install-completion"):  # fmt: skip
        assert command in shown
    version = layerwright("--version", cwd=tmp_path).stdout
    assert version.split() == ["layerwright", metadata.version("layerwright")]


REPAIR = (
    *("--set", "finetune=null", "--set", "repair={rounds: 3, layers: 1}"),
    *("--set", "gate.rules.1={metric: kl_mean.held-out, compare: value, max: 0.0}"),
)


def test_a_rejected_plan_gives_layers_back_until_it_passes(accepted) -> None:
    folder, first = accepted
    result = layerwright(
        *("convert", "recipe.yaml", "--json", *REPAIR, "--set", "gate.rules.0.max=1.0"), cwd=folder
    )
    assert result.returncode == 0, result.stderr
    summary = last_line(result)
    converted = [layer for layer, kind in first["plan"].items() if kind != "keep"]
    given_back = [layer for round in summary["repairs"] for layer in round["given_back"]]
    assert sorted(given_back) == sorted(map(int, converted)), "one by one: only the base has no KL"
    assert len(summary["repairs"]) == len(converted)
    assert all("kl_mean" in round["failed_checks"][0] for round in summary["repairs"])
    assert set(summary["plan"].values()) == {"keep"}
    run = folder / ".layerwright" / "runs" / summary["run_id"]
    assert check_plan(run / "plan-rejected-1.yaml").summary() == first["plan"]
    assert check_plan(run / "plan.yaml").repaired_from is not None
    page = Page((run / "report.html").read_text())
    assert page.says("kl_mean.held-out", section="repair")


def test_repair_stops_where_giving_back_would_break_the_budget(accepted) -> None:
    folder, _ = accepted
    result = layerwright("convert", "recipe.yaml", "--json", *REPAIR, cwd=folder)
    assert result.returncode == 3, result.stderr
    summary = last_line(result)
    assert summary["registered"] is None
    first, second = summary["repairs"]
    assert len(first["given_back"]) == 1
    assert "kv_bytes.1024 failed" in second["stopped"]
    shown = last_line(layerwright("runs", "--json", cwd=folder))["runs"]
    assert any(not missing(run["reason"], "repair", "kv_bytes.1024") for run in shown)
