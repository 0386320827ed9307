"""lm-eval run on one model, task by task, and the managers that know the tasks."""

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

if TYPE_CHECKING:  # lm-eval takes seconds to import, and is imported where it runs
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

LOGIT_BYTES = 250_000_000  # bounds the fp32 logits of a forward on a processor; lm-eval copies them
MOST_ROWS = 32  # in such a forward


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
    """A `TaskRun` of every task, as JSON.

    Args:
        tasks: names or definitions.
        manager_of: gives the manager that knows a task.
        answers: where lm-eval keeps the model's answers, so that none is asked for again after a
            kill.
        definitions: the folder in which relative paths of task files begin.
    """
    from lm_eval import simple_evaluate

    lm = _lm(model, tokenizer, batch)
    seeds = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
    answers, definitions = answers.resolve(), definitions and definitions.resolve()
    for task in tasks:
        try:
            with chdir(definitions) if definitions else nullcontext():
                found = simple_evaluate(
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
            if should_reduce_batch_size(error):  # no fault of the task
                raise
            name = task["group"] if isinstance(task, dict) else task
            said = " ".join(str(error).split())[:300]
            run = TaskRun(problem=f"lm-eval cannot run {name!r}: {type(error).__name__}: {said}")
        else:
            run = TaskRun(figures=figures_of(task, found))
        yield run.model_dump(mode="json")


def _lm(model: HybridForCausalLM, tokenizer: PreTrainedTokenizerBase, batch: int | None) -> HFLM:
    """The model as lm-eval's, with as many rows a forward as memory holds."""
    from lm_eval.models.huggingface import HFLM

    class OnProcessor(HFLM):
        """lm-eval makes the logits of whole rows: their bytes set how many rows it takes."""

        def _loglikelihood_tokens(self, requests: list, *args: Any, **options: Any) -> list:
            longest = max((len(context) + len(end) for _, context, end in requests), default=1)
            row_bytes = 4 * longest * model.config.vocab_size
            self.batch_size_per_gpu = max(1, min(MOST_ROWS, LOGIT_BYTES // row_bytes))
            try:
                return super()._loglikelihood_tokens(requests, *args, **options)
            finally:
                self.batch_size_per_gpu = 1

    bounded = not batch and model.device.type == "cpu"
    kind, rows = (OnProcessor, 1) if bounded else (HFLM, batch or "auto")
    return kind(pretrained=model, tokenizer=tokenizer, batch_size=rows)


def bundled_tasks(folder: str) -> TaskManager:
    """Those of one folder of lm-eval's own: to read all takes half a minute."""
    from lm_eval.tasks import TaskManager

    path = files("lm_eval") / "tasks" / folder
    return TaskManager(include_path=str(path), include_defaults=False)


def all_tasks(
    definitions: Path | None, tokenizer: PreTrainedTokenizerBase, metadata: Mapping[str, Any]
) -> Callable[[str], TaskManager]:
    """The manager for a task of ``definitions``, or of lm-eval's own, which are read if needed.

    Args:
        metadata: given to tasks that generate their data, beside the tokenizer's folder.
    """
    from lm_eval.tasks import TaskManager

    source = tokenizer.name_or_path
    told = {"tokenizer": str(Path(source).resolve())} if source else {}

    @cache
    def manager(defaults: bool) -> TaskManager:
        return TaskManager(
            include_path=definitions and definitions.resolve(),
            include_defaults=defaults,
            metadata=told | dict(metadata),
        )

    def of(task: str) -> TaskManager:
        own = definitions is not None and task in manager(False).all_subtasks
        return manager(not own)

    return of
