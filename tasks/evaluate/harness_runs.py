"""Run tasks of lm-eval on a model, and find their definitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, nullcontext
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils.memory import should_reduce_batch_size
from transformers import PreTrainedTokenizerBase

from layerwright.tasks.evaluate.harness_figures import TaskRun, figures_of
from layerwright.tasks.hybrid.modeling import HybridForCausalLM

if TYPE_CHECKING:  # importing lm-eval takes seconds, so functions import it when they run
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

LOGIT_BYTES = 250_000_000  # limit of the fp32 logits of a forward on the CPU; lm-eval copies them
MOST_ROWS = 32  # limit of the rows of a forward on the CPU


def run_tasks(
    model: HybridForCausalLM,
    tasks: Sequence[str | dict[str, Any]],
    *,
    tokenizer: PreTrainedTokenizerBase,
    manager_of: Callable[[Any], TaskManager],
    seed: int,
    answers: Path,
    definitions: Path | None = None,
    limit: int | None = None,
    shots: int | None = None,
    batch: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield a `TaskRun` for every task, as JSON.

    Args:
        tasks: names or definitions of tasks.
        manager_of: returns the TaskManager that has a task.
        seed: seed of all of lm-eval's random generators.
        answers: file prefix of lm-eval's cache of model answers, from which a killed run resumes.
        definitions: folder that relative paths in task files start from.
        limit: evaluate only the first items of a task, this many; None: all.
        shots: number of few-shot examples; None: the task's own number.
        batch: rows of a forward; None: as many as memory holds.
    """
    from lm_eval import simple_evaluate

    lm = _lm(model, tokenizer, batch)
    seeds = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
    answers, definitions = answers.resolve(), definitions and definitions.resolve()
    for task in tasks:
        try:
            with chdir(definitions) if definitions else nullcontext():
                results = simple_evaluate(
                    lm,
                    tasks=[task],
                    task_manager=manager_of(task),
                    num_fewshot=shots,
                    limit=limit,
                    use_cache=str(answers),
                    bootstrap_iters=0,
                    **dict.fromkeys(seeds, seed),
                )
        except Exception as error:
            if should_reduce_batch_size(error):  # out of memory, which is not the task's fault
                raise
            name = task["group"] if isinstance(task, dict) else task
            reason = " ".join(str(error).split())[:300]
            run = TaskRun(problem=f"lm-eval cannot run {name!r}: {type(error).__name__}: {reason}")
        else:
            run = TaskRun(figures=figures_of(task, results))
        yield run.model_dump(mode="json")


def _lm(model: HybridForCausalLM, tokenizer: PreTrainedTokenizerBase, batch: int | None) -> HFLM:
    """Wrap the model for lm-eval, with as many rows of a forward as memory holds."""
    from lm_eval.models.huggingface import HFLM

    class CpuLM(HFLM):
        """Limits the rows of a forward by the bytes of their logits.

        lm-eval computes the logits of whole rows.
        """

        def _loglikelihood_tokens(self, requests: list, *args: Any, **options: Any) -> list:
            longest = max((len(context) + len(end) for _, context, end in requests), default=1)
            row_bytes = 4 * longest * model.config.vocab_size
            self.batch_size_per_gpu = max(1, min(MOST_ROWS, LOGIT_BYTES // row_bytes))
            try:
                return super()._loglikelihood_tokens(requests, *args, **options)
            finally:
                self.batch_size_per_gpu = 1

    bounded = not batch and model.device.type == "cpu"
    kind, rows = (CpuLM, 1) if bounded else (HFLM, batch or "auto")
    return kind(pretrained=model, tokenizer=tokenizer, batch_size=rows)


def bundled_tasks(folder: str) -> TaskManager:
    """The tasks of a folder of lm-eval; reading all of its folders takes half a minute."""
    from lm_eval.tasks import TaskManager

    path = files("lm_eval") / "tasks" / folder
    return TaskManager(include_path=str(path), include_defaults=False)


def all_tasks(
    definitions: Path | None, tokenizer: PreTrainedTokenizerBase, metadata: Mapping[str, Any]
) -> Callable[[str], TaskManager]:
    """Return a function from a task's name to the TaskManager that has it.

    It searches ``definitions`` first, then lm-eval's own tasks, which are read only if needed.

    Args:
        definitions: folder of the user's task files.
        metadata: passed to tasks that generate their data, with the tokenizer's folder.
    """
    from lm_eval.tasks import TaskManager

    source = tokenizer.name_or_path
    location = {"tokenizer": str(Path(source).resolve())} if source else {}

    @cache
    def manager(defaults: bool) -> TaskManager:
        return TaskManager(
            include_path=definitions and definitions.resolve(),
            include_defaults=defaults,
            metadata=location | dict(metadata),
        )

    def manager_of(task: str) -> TaskManager:
        is_users = definitions is not None and task in manager(False).all_subtasks
        return manager(not is_users)

    return manager_of
