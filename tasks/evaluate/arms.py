"""Arms: the models under comparison, with their saved results."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import numpy as np

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.evaluation import Arm
from layerwright.tasks.evaluate.passes import TextPass, Texts, TextScores, run_pass
from layerwright.tasks.hybrid.mixers import MIXERS
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.states import Keep
from layerwright.tasks.progress import Bar

Item = TypeVar("Item")


@dataclass(frozen=True)
class ArmModel:
    """The model of an arm, loaded on its device at its first use."""

    key: str  # identity of weights and layers; arms with the same key have the same model
    load: Callable[[], HybridForCausalLM]


class Arms:
    """The input of a metric: the arms' models, the texts, and results that survive a kill.

    Args:
        models: of ``base`` and ``candidate``, and of further arms if there are any.
        texts, passes: all that the metrics need.
        keep: stores the rows of a pass between layers.
        keep_out_tokens: sinks + window that the facts of recall prompts must stay out of; None: the
            largest of the candidate's layers.
    """

    def __init__(
        self,
        models: Mapping[Arm, ArmModel],
        texts: Texts,
        passes: Iterable[TextPass],
        ctx: Context,
        bar: Bar,
        *,
        keep: Keep = tuple,
        keep_out_tokens: int | None = None,
    ) -> None:
        self.names: tuple[Arm, ...] = tuple(models)
        self.texts, self.device, self.seed, self.bar = texts, ctx.device, ctx.seed, bar
        self.keep, self._models, self._keep_out_tokens = keep, models, keep_out_tokens
        self._loaded: dict[str, HybridForCausalLM] = {}
        self._workdir = ctx.workdir / "arms"
        self._with_divergence = {text_pass for text_pass in passes if text_pass.divergence}

    def model(self, arm: Arm) -> HybridForCausalLM:
        """The model of an arm, in evaluation mode."""
        model = self._models[arm]
        if model.key not in self._loaded:
            self._loaded[model.key] = model.load().eval()
        return self._loaded[model.key]

    def folder(self, arm: Arm) -> Path:
        """The folder for saved results of an arm's model."""
        path = self._workdir / self._models[arm].key
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def keep_out_tokens(self) -> int:
        """Sinks + window of the candidate's widest layer, without layers that see all tokens."""
        if self._keep_out_tokens is None:
            return kept_tokens(self.model("candidate").config.layer_specs or ())
        return self._keep_out_tokens

    def seed_of(self, purpose: str) -> int:
        """Return a seed that differs for every purpose, and from the seed of the profile."""
        stream = np.random.SeedSequence([self.seed, crc32(f"evaluate/{purpose}".encode())])
        return int(stream.generate_state(1)[0])

    def text_scores(self, arm: Arm, text_pass: TextPass) -> TextScores:
        """Return the scores of a pass; run the pass if they are not saved yet.

        Raises:
            InputError: the text is too short for its rows.
        """
        compared = text_pass in self._with_divergence
        key, base_key = self._models[arm].key, self._models["base"].key
        name = identity([text_pass.text, text_pass.rows, text_pass.row_tokens, compared])[:16]
        path = self._workdir / key / f"pass-{name}.safetensors"
        if not path.is_file():
            base = None
            if compared and key != base_key:
                self.text_scores("base", text_pass)
                base = self._workdir / base_key / path.name, self.model("base").lm_head
            model, rows = self.model(arm), self.texts.rows(text_pass)
            visits, states = len(model.model.layers) * len(rows), compared and key == base_key
            with self._progress(f"{arm}: {text_pass.text}", visits) as after:
                run_pass(
                    model, rows, path, keep=self.keep, keep_states=states, base=base, after=after
                )
        scores = TextScores.load(path)
        is_base = compared and arm != "base" and key == base_key
        return scores.equal_to_base() if is_base else scores

    def item_results(
        self,
        arm: Arm,
        name: str,
        options: object,
        items: Sequence[Item],
        compute: Callable[[HybridForCausalLM, Sequence[Item]], Iterable],
        *,
        what: str,
    ) -> list:
        """Compute a result for each item, and save it at once.

        A later call with the same model, name and options computes only the items without a saved
        result; if there are none, the model is not loaded.

        Args:
            options: everything that the items and the results depend on, besides the model.
            compute: yields a JSON value for each item that it is given, in order.
        """
        path = self.folder(arm) / f"{name}-{identity(options)[:16]}.jsonl"
        with path.open("a+b") as file, self._progress(what, len(items)) as advance:
            file.seek(0)
            *lines, cut_off = file.read().split(b"\n")  # a kill can leave the last line incomplete
            file.truncate(file.tell() - len(cut_off))
            advance(len(lines))
            if remaining := items[len(lines) :]:
                for result in compute(self.model(arm), remaining):
                    lines.append(json.dumps(result).encode())
                    file.write(lines[-1] + b"\n")
                    file.flush()  # to the operating system, so that a kill loses no result
                    advance(1)
        return [json.loads(line) for line in lines]

    def track(self, items: Sequence[Item], what: str) -> Iterator[Item]:
        """Yield the items, and show a progress bar meanwhile."""
        with self._progress(what, len(items)) as advance:
            for item in items:
                yield item
                advance(1)

    @contextmanager
    def _progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        job = self.bar.add_task(what, total=total)
        try:
            yield lambda steps: self.bar.advance(job, steps)
        finally:
            self.bar.remove_task(job)


def kept_tokens(layer_specs: Iterable[Mapping]) -> int:
    """The largest reach of a layer with a bounded reach, in tokens; 0 if no reach is bounded."""
    mixers = [spec["mixer"] for spec in layer_specs]
    return max((MIXERS[mixer["kind"]].reach_tokens(mixer) or 0 for mixer in mixers), default=0)
