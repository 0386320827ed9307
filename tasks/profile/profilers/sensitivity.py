"""What it costs to convert one layer alone: language and recall."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from layerwright.tasks.components import build
from layerwright.tasks.contracts.base import Spec, identity
from layerwright.tasks.contracts.profile import Damage
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.errors import InputError
from layerwright.tasks.passes.scan import Scan
from layerwright.tasks.probes.recall import Probed, Probes, probe_prompts
from layerwright.tasks.probes.yardstick import Figures, Yardstick
from layerwright.tasks.profile.base import Findings, ModelProfiler, Subject
from layerwright.tasks.strategies.base import Strategy

Tried = tuple[Spec, list[Strategy]]  # as the recipe says it, and as each layer has it


class Sensitivity(ModelProfiler):
    """Per layer and strategy: rise of the NLL, fall of the key's log-probability.

    language_nats(l, s) = mean NLL per predicted token with layer l alone converted to s, minus the
    base's, on the first ``rows`` rows of ``row_tokens`` tokens of the profile's rows;
    recall_nats(l, s) = base's mean log-probability per key token minus the converted model's, on
    ``prompts`` generated prompts of ``prompt_tokens`` tokens for each of ``probes`` whose answers
    stand outside the reach of every strategy; kl_nats is the mean KL to the base on every
    fourth token of the same rows.
    All are worse when greater. NLL rise alone is the rule of arXiv 2606.27791; it is blind to
    recall, which one or two layers may carry.

    Strategies that turn a whole run of layers into one thing are also tried on every run of
    ``runs`` layers; such a damage stands at the run's first layer.

    The input of layer l is kept, and only layers l and above run again. Strategies that fit tensors
    are fitted on the profile's other rows: on rows that it was fitted on, a map looks several times
    better than it is. A layer that cannot become one has no damage of it.
    Each layer's result is written down when it is known; a second attempt in the same folder goes
    on behind the last one.
    """

    name: ClassVar[str] = "sensitivity"

    rows: int = Field(default=2, ge=1)
    row_tokens: int | None = Field(default=None, ge=2)  # None: as long as the profile's
    probes: Probes = ("passkey", "multi_key", "associative", "copying")
    prompts: int = Field(default=4, ge=1)  # of each probe
    prompt_tokens: int = Field(default=600, ge=1)
    runs: tuple[Annotated[int, Field(ge=2)], ...] = ()

    def run(self, subject: Subject) -> Findings:
        scores = subject.scores or ({},) * len(subject.model.model.layers)
        specs = [spec for spec in subject.strategies if spec.name != "keep"]
        fits = any(build(Strategy, spec).fits for spec in specs)
        self.check_rows(*subject.rows.shape, fits=fits)
        strategies = [(spec, _of_layers(spec, scores)) for spec in specs]
        reaches = [one.reach_tokens() or 0 for _, per_layer in strategies for one in per_layer]
        probes = probe_prompts(
            self.probes,
            subject.tokenizer,
            self.prompts,
            self.prompt_tokens,
            subject.seed,
            keep_out_tokens=max(reaches, default=0),
        )
        what = identity([self.model_dump(), specs, scores, subject.seed])[:16]
        folder = subject.workdir / f"sensitivity-{what}"
        return self._scan(subject, strategies, probes, folder, fits=fits)

    def estimate_tokens(self, layers: int, strategies: int) -> int:
        tokens = self.rows * (self.row_tokens or 1024)
        tokens += len(self.probes) * self.prompts * self.prompt_tokens
        # the base once through, and half the layers, on average, for each layer and strategy
        return round(tokens * (2 + layers * strategies / 2))

    def check_rows(self, rows: int, row_tokens: int, *, fits: bool) -> None:
        if self.rows > rows or (self.row_tokens or row_tokens) > row_tokens:
            raise InputError(
                f"sensitivity asks for {self.rows} rows of {self.row_tokens or row_tokens} tokens",
                where="profile.rows" if self.rows > rows else "profile.row_tokens",
                expected=f"at most the profile's {rows} rows of {row_tokens} tokens",
            )
        if fits and self.rows == rows:
            raise InputError(
                f"sensitivity measures on all {rows} rows of the profile, and leaves none to fit "
                "strategies on",
                where="profile.rows",
                expected=f"more than {self.rows} rows, or fewer for sensitivity",
            )

    def _scan(
        self,
        subject: Subject,
        strategies: list[Tried],
        probes: Probed,
        folder: Path,
        *,
        fits: bool,
    ) -> Findings:
        """All layers, each converted alone, from the bottom to the top."""
        model, log = subject.model, subject.log
        layers = len(model.model.layers)
        files = [folder / f"layer_{layer:03d}.json" for layer in range(layers)]
        known = [json.loads(file.read_text()) if file.is_file() else None for file in files]
        base_file = folder / "base.json"
        job = subject.bar.add_task(
            "sensitivity", total=layers, completed=layers - known.count(None)
        )
        if None in known or not base_file.is_file():
            yardstick = Yardstick(model, self._text(subject.rows), probes, subject.keep)
            write_atomically(base_file, yardstick.base.model_dump_json().encode())
            scan = Scan(model, model, yardstick, subject.rows[self.rows :] if fits else None)
            for layer in range(layers):
                if known[layer] is None:
                    known[layer] = [
                        damage.model_dump(mode="json")
                        for spec, per_layer in strategies
                        for damage in self._damages(scan, spec, per_layer[layer], log)
                    ]
                    write_atomically(files[layer], json.dumps(known[layer]).encode())
                    subject.bar.advance(job)
                    if (layer + 1) % 5 == 0 or layer + 1 == layers:
                        log(f"sensitivity: layer {layer + 1} of {layers}")
                if layer + 1 < layers:
                    scan.advance()
        base = Figures.model_validate_json(base_file.read_text())
        return Findings(
            damage=[tuple(map(Damage.model_validate, found)) for found in known],
            reference={"nll": base.nll}
            | {f"key_log_prob.{probe}": value for probe, value in base.log_prob.items()}
            | {f"exact_keys.{probe}": value for probe, value in base.exact.items()},
        )

    def _damages(
        self, scan: Scan, spec: Spec, strategy: Strategy, log: Callable[[str], None]
    ) -> Iterator[Damage]:
        """Of the layer at hand, and of the runs that begin here; none where it cannot be."""
        above = len(scan.model.model.layers) - scan.layer
        lengths = (1, *(n for n in self.runs if strategy.joins and n <= above))
        for length in lengths:
            try:
                found = scan.figures_with(strategy, length)
            except InputError as error:
                log(f"sensitivity: layer {scan.layer} cannot become {spec.name}: {error.message}")
                return
            yield Damage(strategy=spec, layers=length, **scan.yardstick.damage(found))

    def _text(self, rows: Tensor) -> Tensor:
        return rows[: self.rows, : self.row_tokens or rows.shape[1]]


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
            "the recall metric shows what it costs",
        )
    return per_layer
