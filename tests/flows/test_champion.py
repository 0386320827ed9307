"""A second run beside the champion that the first one made, as a user drives it."""

from pathlib import Path

from layerwright_process import last_line, layerwright
from report.page_reader import Page
from tiny_checkpoint import write_tiny_inputs

from layerwright.tasks.tracking import connect


def test_a_later_candidate_is_measured_beside_the_champion(tmp_path: Path) -> None:
    write_tiny_inputs(tmp_path)
    first = last_line(layerwright("convert", "recipe.yaml", "--json", cwd=tmp_path))
    assert list(first["metrics"]) == ["base", "candidate"]
    with connect(f"sqlite:///{tmp_path}/.layerwright/mlflow.db") as client:
        client.set_registered_model_alias("tiny-hybrid", "champion", "1")
    rule = "gate.rules.1={metric: perplexity.*, max: 1.5, arm: champion, on: bound, slice: pos*}"
    result = layerwright(
        "convert", "recipe.yaml", "--json", "--set", "finetune.stages.0.steps=4",
        "--set", rule, "--set", "gate.min_items=4", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    second = last_line(result)
    assert list(second["metrics"]) == ["base", "candidate", "champion"]
    assert (
        second["metrics"]["champion"]["perplexity.held-out"]
        == (first["metrics"]["candidate"]["perplexity.held-out"])
    )
    assert second["registered"]["version"] == "2"
    page = Page(Path(second["report"].removeprefix("file://")).read_text())
    assert "The champion is version 1 of the registry" in page.text
    assert "ratio to the champion, pos* <= 1.5, 95 % bound" in page.text
    with connect(f"sqlite:///{tmp_path}/.layerwright/mlflow.db") as client:
        tags = client.get_model_version("tiny-hybrid", "2").tags
    assert tags["layerwright.gate_checks"] == "2 passed, 0 warned, 0 waived"
