"""What it costs to convert one layer alone: language and recall."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from tasks.contracts import Damage, Spec, identity
from tasks.errors import InputError
from tasks.hybrid.modeling import HybridForCausalLM
from tasks.measure.conversion import converted, layer_of
from tasks.measure.likelihood import token_nll
from tasks.measure.recall import RecallPrompt, last_logits, recall_prompts, score_keys
from tasks.profile.base import Findings, ModelProfiler, Subject
from tasks.progress import Bar
from tasks.registry import build
from tasks.store import write_atomically
from tasks.strategies.base import Strategy
from tasks.strategies.stretch import Stretch, StretchBatch

Tried = tuple[Spec, list[Strategy]]  # as the recipe says it, and as each layer has it


class Sensitivity(ModelProfiler):
    """Per layer and strategy: rise of the NLL, fall of the key's log-probability.

    language_nats(l, s) = mean NLL per predicted token with layer l alone converted to s, minus the
    base's, on the first ``rows`` rows of ``row_tokens`` tokens of the profile's rows;
    recall_nats(l, s) = base's mean log-probability per key token minus the converted model's, on
    ``prompts`` generated passkey prompts of ``prompt_tokens`` tokens whose keys stand outside the
    reach of every strategy. Both are worse when greater. NLL rise alone is the rule of
    arXiv 2606.27791; it is blind to recall, which one or two layers may carry.

    The input of layer l is kept, and only layers l and above run again. Strategies that fit tensors
    are fitted on all of the profile's rows; a layer that cannot become one has no damage of it.
    Each layer's result is written down when it is known; a second attempt in the same folder goes
    on behind the last one.
    """

    name: ClassVar[str] = "sensitivity"

    rows: int = Field(default=2, ge=1)
    row_tokens: int | None = Field(default=None, ge=2)  # None: as long as the profile's
    prompts: int = Field(default=12, ge=1)
    prompt_tokens: int = Field(default=600, ge=1)

    def run(self, subject: Subject) -> Findings:
        scores = subject.scores or ({},) * len(subject.model.model.layers)
        specs = [spec for spec in subject.strategies if spec.name != "keep"]
        strategies = [(spec, _of_layers(spec, scores)) for spec in specs]
        reaches = [one.reach_tokens() or 0 for _, per_layer in strategies for one in per_layer]
        prompts = recall_prompts(
            "passkey",
            subject.tokenizer,
            self.prompts,
            self.prompt_tokens,
            subject.seed,
            keep_out_tokens=max(reaches, default=0),
        )
        what = identity([self.model_dump(), specs, scores, subject.seed])[:16]
        scan = _Scan(subject.model, self._text(subject.rows), prompts, subject.rows, subject.log)
        return scan.run(strategies, subject.workdir / f"sensitivity-{what}", subject.bar)

    def estimate_tokens(self, layers: int, strategies: int) -> int:
        tokens = self.rows * (self.row_tokens or 1024) + self.prompts * self.prompt_tokens
        # the base once through, and half the layers, on average, for each layer and strategy
        return round(tokens * (2 + layers * strategies / 2))

    def _text(self, rows: Tensor) -> Tensor:
        wanted = self.rows, self.row_tokens or rows.shape[1]
        if wanted[0] > rows.shape[0] or wanted[1] > rows.shape[1]:
            raise InputError(
                f"sensitivity asks for {wanted[0]} rows of {wanted[1]} tokens",
                where="profile",
                expected=f"at most the profile's {len(rows)} rows of {rows.shape[1]} tokens",
            )
        return rows[: wanted[0], : wanted[1]]


def _of_layers(spec: Spec, scores: Sequence[dict[str, float]]) -> list[Strategy]:
    """The strategy as each layer's scores make it.

    Raises:
        InputError: a score is missing, or a layer converted alone would say nothing.
    """
    asked = build(Strategy, spec)
    per_layer = [asked.resolved(of_layer) for of_layer in scores]
    if per_layer[0].decides_together:
        raise InputError(
            f"{spec.name} decides over all its layers together: converting one layer alone says "
            "nothing of what it costs",
            where="profile.profilers",
            remedy="choose its layers with `convert_all` or `listed`, and leave out sensitivity; "
            "the passkey metric shows what it costs",
        )
    return per_layer


class _Stream:
    """Some rows on their way through the base: the input of one layer, batch by batch."""

    def __init__(self, model: HybridForCausalLM, ids: Tensor) -> None:
        self.model = model
        at_once = 1 if model.device.type == "cpu" else 8  # one row fills a CPU, and its cache
        self.ids = [batch.to(model.device) for batch in ids.split(at_once)]
        self.states, self.placements = zip(*map(model.model.prepare, self.ids), strict=True)
        self.before: tuple[Tensor, ...] | None = None  # the input of the layer below
        self.layer = 0

    def advance(self) -> None:
        """To the input of the next layer."""
        self.before, self.states = self.states, self._outputs()
        self.layer += 1

    def logits(self, first: int, last: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """(ids, logits) per batch: layers ``first`` and above run; logits of the last tokens.

        ``first`` is the layer whose input is held, or the one below it.
        """
        states = self.states if first == self.layer else self.before
        for ids, state, placement in zip(self.ids, states, self.placements, strict=True):
            out = self.model.model.run_layers(state, placement, first)
            yield ids, self.model.head(out if last is None else out[:, -last:])

    def stretch(self) -> Stretch:
        """The one layer whose input is held, for a strategy to be fitted on."""
        first_row, batches = 0, []
        before = self.before or [None] * len(self.ids)
        streams = zip(self.ids, self.placements, before, self.states, self._outputs(), strict=True)
        for ids, placement, below, x, target in streams:
            batches.append(StretchBatch(ids, placement, first_row, below, x, target))
            first_row += len(ids)
        return Stretch(self.model, self.layer, self.layer + 1, tuple(batches))

    def _outputs(self) -> tuple[Tensor, ...]:
        block = self.model.model.layers[self.layer]
        pairs = zip(self.states, self.placements, strict=True)
        return tuple(block(state, placement) for state, placement in pairs)


class _Scan:
    """All layers, each converted alone, from the bottom to the top."""

    def __init__(
        self,
        model: HybridForCausalLM,
        rows: Tensor,
        prompts: list[RecallPrompt],
        calibration: Tensor,
        log: Callable[[str], None],
    ) -> None:
        self.model, self.rows, self.prompts, self.log = model, rows, prompts, log
        self.calibration = calibration

    @torch.no_grad()  # fitted tensors become parameters, which inference mode would not let go
    def run(self, strategies: list[Tried], folder: Path, bar: Bar) -> Findings:
        layers = len(self.model.model.layers)
        files = [folder / f"layer_{layer:03d}.json" for layer in range(layers)]
        known = [json.loads(file.read_text()) if file.is_file() else None for file in files]
        base_file = folder / "base.json"
        base = json.loads(base_file.read_text()) if base_file.is_file() else None
        job = bar.add_task("sensitivity", total=layers, completed=layers - known.count(None))
        if base is None or None in known:
            text = _Stream(self.model, self.rows)
            recall = _Stream(self.model, torch.stack([prompt.ids for prompt in self.prompts]))
            streams = [text, recall]
            if any(one.fits for _, per_layer in strategies for one in per_layer):
                streams.append(_Stream(self.model, self.calibration))
            if base is None:
                base = self._measure(text, recall, 0)
                write_atomically(base_file, json.dumps(base).encode())
            for layer in range(layers):
                if known[layer] is None:
                    tried = [
                        self._damage(streams, layer, spec, per_layer[layer], base)
                        for spec, per_layer in strategies
                    ]
                    known[layer] = [damage for damage in tried if damage is not None]
                    write_atomically(files[layer], json.dumps(known[layer]).encode())
                    bar.advance(job)
                    if (layer + 1) % 5 == 0 or layer + 1 == layers:
                        self.log(f"sensitivity: layer {layer + 1} of {layers}")
                for stream in streams:
                    stream.advance()
        return Findings(
            damage=[tuple(map(Damage.model_validate, found)) for found in known],
            reference=base,
        )

    def _damage(
        self,
        streams: list[_Stream],
        layer: int,
        spec: Spec,
        strategy: Strategy,
        base: dict[str, float],
    ) -> dict | None:
        """None where the layer cannot become this, such as a patch that has no layer below."""
        text, recall, *calibration = streams
        try:
            tensors = strategy.fit(calibration[0].stretch()) if strategy.fits else {}
        except InputError as error:
            self.log(f"sensitivity: layer {layer} cannot become {spec.name}: {error.message}")
            return None
        (wanted,) = strategy.layer_specs([self.model.config.layer_specs[layer]])
        with converted(self.model, {layer: wanted}, tensors):
            found = self._measure(text, recall, min(map(layer_of, tensors), default=layer))
        return Damage(
            strategy=spec,
            language_nats=found["nll"] - base["nll"],
            recall_nats=base["key_log_prob"] - found["key_log_prob"],
        ).model_dump(mode="json")

    def _measure(self, text: _Stream, recall: _Stream, layer: int) -> dict[str, float]:
        """Means over all predicted tokens and all keys; ``layer`` and all above it are run."""
        nll = [token_nll(logits, ids).double().mean(1) for ids, logits in text.logits(layer)]
        scores, waiting = [], list(self.prompts)
        for ids, logits in recall.logits(layer, last_logits(self.prompts)):
            some, waiting = waiting[: len(ids)], waiting[len(ids) :]
            scores += score_keys(logits, some)
        return {
            "nll": torch.cat(nll).mean().item(),
            "key_log_prob": sum(score.log_prob for score in scores) / len(scores),
            "exact_keys": sum(score.exact for score in scores) / len(scores),
        }
