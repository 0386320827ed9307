"""Plans tried on the real model; what was measured once is not measured again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor

from layerwright.tasks.components import build
from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.contracts.profile import MeasuredDamage
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.fitting import converted_copy
from layerwright.tasks.passes.scan import Scan
from layerwright.tasks.probes.yardstick import Yardstick
from layerwright.tasks.strategies.base import Strategy
from layerwright.tasks.strategies.specs import assignments_of


class MeasuredTrial:
    """`Trial` by converting a base in memory.

    Args:
        base: gives the base; called when something must be measured for the first time.
        yardstick: made of the base then.
        rows: gives calibration rows, for strategies that fit.
        folder: survives a kill; every finished measurement is a file in it.
        log: a line for each plan.
    """

    def __init__(
        self,
        base: Callable[[], HybridForCausalLM],
        yardstick: Callable[[HybridForCausalLM], Yardstick],
        rows: Callable[[], Tensor],
        folder: Path,
        log: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._base, self._make_yardstick, self._rows = base, yardstick, rows
        self._folder, self._log = folder, log

    @cached_property
    def base(self) -> HybridForCausalLM:
        return self._base()

    @cached_property
    def yardstick(self) -> Yardstick:
        return self._make_yardstick(self.base)

    def measure(self, items: Sequence[PlanItem]) -> MeasuredDamage:
        file = self._file(items)
        if not file.is_file():
            model = self._converted(items)
            found = self.yardstick.figures(self.yardstick.streams(model), 0)
            self._keep(file, MeasuredDamage(**self.yardstick.damage(found)))
        damage = MeasuredDamage.model_validate_json(file.read_text())
        self._log(
            f"choose: a plan measured: {damage.language_nats:.4f} nats language, "
            f"KL {damage.kl_nats:.4f}, {damage.recall_nats:.4f} nats recall"
        )
        return damage

    def changes(
        self, items: Sequence[PlanItem], instead: Sequence[PlanItem]
    ) -> list[MeasuredDamage | None]:
        files = [self._file(items, change) for change in instead]
        missing = [i for i, file in enumerate(files) if not file.is_file()]
        if missing:
            self._walk(items, [(instead[i], files[i]) for i in missing])
        texts = [file.read_text() for file in files]
        return [MeasuredDamage.model_validate_json(text) if text else None for text in texts]

    def _walk(self, items: Sequence[PlanItem], wanted: list[tuple[PlanItem, Path]]) -> None:
        model = self._converted(items)
        built = [(build(Strategy, change.spec), change, file) for change, file in wanted]
        fits = any(strategy.fits for strategy, _, _ in built)
        scan = Scan(model, self.base, self.yardstick, self._rows() if fits else None)
        for strategy, change, file in sorted(built, key=lambda one: one[1].start):
            while scan.layer < change.start:
                scan.advance()
            try:
                found = scan.figures_with(strategy, change.stop - change.start)
            except InputError as error:
                self._log(f"choose: layer {change.start}: {error.message}")
                write_atomically(file, b"")
            else:
                self._keep(file, MeasuredDamage(**self.yardstick.damage(found)))

    def _converted(self, items: Sequence[PlanItem]) -> HybridForCausalLM:
        parts = assignments_of(items)
        return converted_copy(self.base, parts, self._rows, self.yardstick.keep)

    @staticmethod
    def _keep(file: Path, damage: MeasuredDamage) -> None:
        write_atomically(file, damage.model_dump_json().encode())

    def _file(self, items: Sequence[PlanItem], change: PlanItem | None = None) -> Path:
        def said(item: PlanItem) -> list[object]:
            return [item.start, item.stop, item.strategy, item.params]

        key = identity([list(map(said, items)), said(change) if change else None])
        return self._folder / f"{key[:24]}.json"
