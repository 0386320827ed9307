"""A step's cache key follows the code that the step can reach, and nothing else."""

from tasks.code_version import closure


def test_late_imports_and_discovered_components_count() -> None:
    reached = closure("tasks.convert.task")
    assert "tasks.convert.checkpoint" in reached
    assert "tasks.strategies.streaming" in reached, "found by discovery, not by an import"
    assert "tasks.hybrid.modeling" in reached
    assert "kernels.streaming_attention.dispatch" in reached


def test_other_steps_do_not_count() -> None:
    reached = closure("tasks.convert.task")
    for other in ("finetune", "evaluate", "gate", "report", "register"):
        assert not any(name.startswith(f"tasks.{other}") for name in reached), other


def test_a_metric_changes_evaluate_alone() -> None:
    assert "tasks.evaluate.perplexity" in closure("tasks.evaluate.task")
    assert "tasks.evaluate.perplexity" not in closure("tasks.finetune.task")
