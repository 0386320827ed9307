"""Sensitivity: the damage of converting a single layer, in language and in recall."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.profile import Damage
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.errors import InputError
from layerwright.tasks.probes.recall import Probed, Probes, probe_prompts
from layerwright.tasks.probes.scan import Scan
from layerwright.tasks.probes.yardstick import Figures, Yardstick
from layerwright.tasks.profile.base import Findings, ModelProfiler, Subject
from layerwright.tasks.strategies.base import Strategy

Tried = tuple[Strategy, list[Strategy]]  # the recipe's, and the one resolved for each layer


class Sensitivity(ModelProfiler):
    """Per layer and strategy: the rise of the NLL and the fall of the key's log-probability.

    Each measures the base with layer l alone converted to strategy s; greater is worse:

    - language_nats(l, s): the rise of the mean NLL per predicted token over the base, on the first
      ``rows`` calibration rows, cut to ``row_tokens`` tokens.
    - recall_nats(l, s): the fall of the mean log-probability per key token below the base, on
      ``prompts`` generated prompts of ``prompt_tokens`` tokens for each of ``probes``. The answers
      lie outside the reach of every strategy.
    - kl_nats(l, s): the mean KL divergence from the base on every fourth token of the same rows.

    The NLL rise alone is the rule of arXiv 2606.27791. It does not see the loss of recall, which
    may depend on only one or two layers. Strategies that join several layers are also tried on
    every run of ``runs`` layers; the damage of a run is stored at its first layer.

    The input of layer l is kept, so only layers l and above run again. Strategies that fit tensors
    are fitted on the other calibration rows, because a map looks several times better on its own. A
    layer that a strategy cannot convert gets no damage for it. The result of each layer is saved at
    once, so a second attempt in the same folder resumes after the last saved layer.
    """

    name = "sensitivity"
    rows: int = Field(default=2, ge=1)
    row_tokens: int | None = Field(default=None, ge=2)  # None: whole rows
    probes: Probes = ("passkey", "multi_key", "associative", "copying")
    prompts: int = Field(default=4, ge=1)  # for each probe
    prompt_tokens: int = Field(default=600, ge=1)
    runs: tuple[Annotated[int, Field(ge=2)], ...] = ()

    def run(self, subject: Subject) -> Findings:
        scores = subject.scores or ({},) * len(subject.model.model.layers)
        tried = [strategy for strategy in subject.strategies if strategy.name != "keep"]
        fits = any(strategy.fits for strategy in tried)
        self.check_rows(*subject.rows.shape, fits=fits)
        strategies = [(s, [s.resolved(of_layer) for of_layer in scores]) for s in tried]
        for _, (first, *_others) in strategies:
            if first.decides_together:
                raise InputError(
                    f"{first.name} decides over all its layers together, so the damage of a single "
                    "layer says nothing about its cost",
                    where="profile.profilers",
                    remedy="select its layers with `convert_all` or `listed`, and remove "
                    "sensitivity; the recall metric measures its cost",
                )
        reaches = [s.reach_tokens() or 0 for _, per_layer in strategies for s in per_layer]
        reach, seed = max(reaches, default=0), subject.seed
        sizes = (self.prompts, self.prompt_tokens, seed)
        probes = probe_prompts(self.probes, subject.tokenizer, *sizes, keep_out_tokens=reach)
        key = identity([self.model_dump(), [s.spec for s in tried], scores, seed])[:16]
        folder = subject.workdir / f"sensitivity-{key}"
        return self._scan(subject, strategies, probes, folder, fits=fits)

    def estimate_tokens(self, layers: int, strategies: int) -> int:
        tokens = self.rows * (self.row_tokens or 1024)
        tokens += len(self.probes) * self.prompts * self.prompt_tokens
        # a full pass of the base, and half of the layers, on average, per layer and strategy
        return round(tokens * (2 + layers * strategies / 2))

    def check_rows(self, rows: int, row_tokens: int, *, fits: bool) -> None:
        if self.rows > rows or (self.row_tokens or row_tokens) > row_tokens:
            raise InputError(
                f"sensitivity needs {self.rows} rows of {self.row_tokens or row_tokens} tokens",
                where="profile.rows" if self.rows > rows else "profile.row_tokens",
                expected=f"at most the profile's {rows} rows of {row_tokens} tokens",
            )
        if fits and self.rows == rows:
            raise InputError(
                f"sensitivity measures on all {rows} rows of the profile, so no row is left to fit "
                "strategies on",
                where="profile.rows",
                expected=f"more than {self.rows} rows, or fewer rows for sensitivity",
            )

    def _scan(
        self, subject: Subject, strategies: list[Tried], probes: Probed, folder: Path, *, fits: bool
    ) -> Findings:
        """Convert each layer alone, from the first to the last; skip saved layers."""
        model, log = subject.model, subject.log
        layers = len(model.model.layers)
        files = [folder / f"layer_{layer:03d}.json" for layer in range(layers)]
        saved = [file.is_file() for file in files]
        base_file = folder / "base.json"
        job = subject.bar.add_task("sensitivity", total=layers, completed=sum(saved))
        if not all(saved) or not base_file.is_file():
            text = subject.rows[: self.rows, : self.row_tokens or subject.rows.shape[1]]
            yardstick = Yardstick(model, text, probes, subject.keep)
            write_atomically(base_file, yardstick.base.model_dump_json().encode())
            scan = Scan(model, model, yardstick, subject.rows[self.rows :] if fits else None)
            for layer in range(layers):
                if not saved[layer]:
                    damages = [
                        damage.model_dump(mode="json")
                        for given, per_layer in strategies
                        for damage in self._damages(scan, given, per_layer[layer], log)
                    ]
                    write_atomically(files[layer], json.dumps(damages).encode())
                    subject.bar.advance(job)
                    if (layer + 1) % 5 == 0 or layer + 1 == layers:
                        log(f"sensitivity: layer {layer + 1} of {layers}")
                if layer + 1 < layers:
                    scan.advance()
        base = Figures.model_validate_json(base_file.read_text())
        return Findings(
            damage=[tuple(map(Damage.model_validate, json.loads(f.read_text()))) for f in files],
            reference={"nll": base.nll}
            | {f"key_log_prob.{probe}": value for probe, value in base.log_prob.items()}
            | {f"exact_keys.{probe}": value for probe, value in base.exact.items()},
        )

    def _damages(
        self, scan: Scan, given: Strategy, strategy: Strategy, log: Callable[[str], None]
    ) -> Iterator[Damage]:
        """The damage at the scan's layer, alone and of each run, up to the first impossible one."""
        remaining = len(scan.model.model.layers) - scan.layer
        for length in (1, *(n for n in self.runs if strategy.joins and n <= remaining)):
            try:
                figures = scan.figures_with(strategy, length)
            except InputError as error:
                log(f"sensitivity: layer {scan.layer} cannot become {given.name}: {error.message}")
                return
            yield Damage(strategy=given.spec, layers=length, **scan.yardstick.damage(figures))
