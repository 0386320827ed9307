"""A step's cache key follows the code that the step can reach, and nothing else."""

from layerwright.tasks.orchestration.code_version import closure


def test_late_imports_and_discovered_components_count() -> None:
    reached = closure("layerwright.tasks.convert.task")
    assert "layerwright.tasks.convert.checkpoint" in reached
    assert "layerwright.tasks.strategies.streaming" in reached, (
        "found by discovery, not by an import"
    )
    assert "layerwright.tasks.hybrid.modeling" in reached
    assert "layerwright.kernels.streaming_attention.dispatch" in reached


def test_other_steps_do_not_count() -> None:
    reached = closure("layerwright.tasks.convert.task")
    for other in ("finetune", "evaluate", "gate", "report", "register"):
        assert not any(name.startswith(f"tasks.{other}") for name in reached), other


def test_a_metric_changes_evaluate_alone() -> None:
    assert "layerwright.tasks.evaluate.metrics.perplexity" in closure(
        "layerwright.tasks.evaluate.task"
    )
    assert "layerwright.tasks.evaluate.metrics.perplexity" not in closure(
        "layerwright.tasks.finetune.task"
    )
