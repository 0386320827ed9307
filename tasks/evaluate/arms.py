"""The models under comparison, and what they have been measured on already."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar
from zlib import crc32

import numpy as np

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.evaluation import Arm
from layerwright.tasks.evaluate.base import Metric, TextPass
from layerwright.tasks.evaluate.passes import TextScores, run_pass
from layerwright.tasks.evaluate.texts import Texts
from layerwright.tasks.hybrid.mixers import MIXERS
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.states import Keep
from layerwright.tasks.progress import Bar

Item = TypeVar("Item")


@dataclass(frozen=True)
class ArmModel:
    """One model, loaded when it is first run.

    Attributes:
        key: identity of weights and layers; arms with the same key are the same model.
        load: gives the model, on its device and in evaluation mode.
    """

    key: str
    load: Callable[[], HybridForCausalLM]


class Arms:
    """What a metric measures: models by arm, texts, and a memory that survives a kill.

    Args:
        models: ``base`` and ``candidate``, and other arms where there are any.
        texts: those that the metrics need.
        metrics: all metrics that will ask, so that those of one text share its pass.
        keep_out_tokens: sinks + window that recall prompts must stay out of; None takes the
            largest of the candidate's layers.
        device: that the models run on.
        seed: from the recipe.
        workdir: finished passes are kept here.
        bar: shows what is running.
        keep: where the rows of a pass wait between layers.
    """

    def __init__(
        self,
        models: Mapping[Arm, ArmModel],
        texts: Texts,
        metrics: Iterable[Metric],
        *,
        keep_out_tokens: int | None = None,
        device: str,
        seed: int,
        workdir: Path,
        bar: Bar,
        keep: Keep = tuple,
    ) -> None:
        self.names: tuple[Arm, ...] = tuple(models)
        self.texts, self.device, self.seed, self.bar = texts, device, seed, bar
        self._models = models
        self._loaded: dict[str, HybridForCausalLM] = {}
        self._keep_out_tokens = keep_out_tokens
        self._workdir, self.keep = workdir, keep
        self._compared = {
            wanted for metric in metrics for wanted in metric.passes() if wanted.divergence
        }

    def model(self, arm: Arm) -> HybridForCausalLM:
        wanted = self._models[arm]
        if wanted.key not in self._loaded:
            self._loaded[wanted.key] = wanted.load().eval()
        return self._loaded[wanted.key]

    def folder(self, arm: Arm) -> Path:
        """Where what is finished of an arm's model is kept."""
        path = self._workdir / self._models[arm].key
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def keep_out_tokens(self) -> int:
        """The most tokens that a layer of the candidate keeps, if it does not keep all."""
        if self._keep_out_tokens is None:
            return kept_tokens(self.model("candidate").config.layer_specs or ())
        return self._keep_out_tokens

    def seed_of(self, purpose: str) -> int:
        """A seed for one purpose, apart from every other purpose's and from the profile's."""
        stream = np.random.SeedSequence([self.seed, crc32(f"evaluate/{purpose}".encode())])
        return int(stream.generate_state(1)[0])

    def passed(self, arm: Arm, wanted: TextPass) -> TextScores:
        """The outcome of one pass; run now if it was not run before.

        Raises:
            InputError: the text is too short for its rows.
        """
        compared = wanted in self._compared
        key, base_key = self._models[arm].key, self._models["base"].key
        name = identity([wanted.text, wanted.rows, wanted.row_tokens, compared])[:16]
        path = self._workdir / key / f"pass-{name}.safetensors"
        if not path.is_file():
            base = None
            if compared and key != base_key:
                self.passed("base", wanted)
                base = self._workdir / base_key / path.name
            model, rows = self.model(arm), self.texts.rows(wanted)
            visits = len(model.model.layers) * len(rows)
            with self._shown(f"{arm}: {wanted.text}", visits) as advance:
                run_pass(
                    model,
                    rows,
                    path,
                    keep=self.keep,
                    keep_states=compared and key == base_key,
                    base=(base, self.model("base").lm_head) if base else None,
                    after=advance,
                )
        scores = TextScores.load(path)
        same = compared and arm != "base" and key == base_key
        return scores.equal_to_base() if same else scores

    def remembered(
        self,
        arm: Arm,
        name: str,
        options: object,
        items: Sequence[Item],
        compute: Callable[[HybridForCausalLM, Sequence[Item]], Iterable],
        *,
        what: str,
    ) -> list:
        """What ``compute`` makes of each item, once for each model, name and options.

        Every result is kept as soon as it is there: after a kill, ``compute`` is given the items
        that are left, and a model with none left is not loaded.

        Args:
            options: all that the items and what is made of them follow from.
            compute: yields one result, as JSON, for each of the items that it is given, in order.
            what: stands before the bar.
        """
        path = self.folder(arm) / f"{name}-{identity(options)[:16]}.jsonl"
        with path.open("a+b") as file, self._shown(what, len(items)) as advance:
            found = _whole_lines(file)
            advance(len(found))
            if left := items[len(found) :]:
                for result in compute(self.model(arm), left):
                    found.append(json.dumps(result).encode())
                    file.write(found[-1] + b"\n")
                    file.flush()  # to the operating system: a kill loses nothing more
                    advance(1)
        return [json.loads(line) for line in found]

    def track(self, items: Sequence[Item], what: str) -> Iterator[Item]:
        """The items, with a bar of their own while they last."""
        with self._shown(what, len(items)) as advance:
            for item in items:
                yield item
                advance(1)

    @contextmanager
    def _shown(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar for the length of the block, and what moves it on."""
        job = self.bar.add_task(what, total=total)
        try:
            yield lambda steps: self.bar.advance(job, steps)
        finally:
            self.bar.remove_task(job)


def _whole_lines(file: BinaryIO) -> list[bytes]:
    """The lines of a file; one that a kill cut short is removed."""
    file.seek(0)
    written = file.read()
    whole = written[: written.rfind(b"\n") + 1]
    file.truncate(len(whole))
    return whole.splitlines()


def kept_tokens(layer_specs: Iterable[Mapping]) -> int:
    """The most tokens that a layer with a bounded reach sees one by one; 0 if none is bounded."""
    mixers = [spec["mixer"] for spec in layer_specs]
    return max((MIXERS[mixer["kind"]].reach_tokens(mixer) or 0 for mixer in mixers), default=0)
