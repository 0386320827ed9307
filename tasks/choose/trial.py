"""Measure plans on the real model; every measurement is saved and never repeated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.contracts.profile import MeasuredDamage
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.fitting import converted_copy
from layerwright.tasks.probes.scan import Scan
from layerwright.tasks.probes.yardstick import Figures, Yardstick
from layerwright.tasks.strategies.specs import assignments_of, strategy_of


@dataclass(eq=False)
class Trial:
    """Measures plans on a copy of the base that it converts in memory.

    ``load`` and ``make_yardstick`` are called at the first measurement that is not saved yet.
    """

    load: Callable[[], HybridForCausalLM]
    make_yardstick: Callable[[HybridForCausalLM], Yardstick]
    rows: Callable[[], Tensor]  # loads calibration rows, for strategies that fit tensors
    folder: Path  # survives a kill; every measurement is saved as a file in it
    log: Callable[[str], None] = lambda message: None

    @cached_property
    def base(self) -> HybridForCausalLM:
        return self.load()

    @cached_property
    def yardstick(self) -> Yardstick:
        return self.make_yardstick(self.base)

    def measure(self, items: Sequence[PlanItem]) -> MeasuredDamage:
        """The damage of a whole plan."""
        file = self._file(items)
        if not file.is_file():
            model = self._converted(items)
            self._save(file, self.yardstick.figures(self.yardstick.streams(model), 0))
        damage = MeasuredDamage.model_validate_json(file.read_text())
        self.log(
            f"choose: measured a plan: {damage.language_nats:.4f} nats language, "
            f"KL {damage.kl_nats:.4f}, {damage.recall_nats:.4f} nats recall"
        )
        return damage

    def changes(
        self, items: Sequence[PlanItem], instead: Sequence[PlanItem]
    ) -> list[MeasuredDamage | None]:
        """The damage of the plan with a single change, for each item of ``instead``.

        None for an item that its strategy cannot realise. Each item must begin and end at the
        boundary of an item of the plan. Maps above the change are not fitted again.
        """
        files = [self._file(items, change) for change in instead]
        missing = [i for i, file in enumerate(files) if not file.is_file()]
        if missing:
            self._scan(items, [(instead[i], files[i]) for i in missing])
        texts = [file.read_text() for file in files]
        return [MeasuredDamage.model_validate_json(text) if text else None for text in texts]

    def _scan(self, items: Sequence[PlanItem], changes: list[tuple[PlanItem, Path]]) -> None:
        """Measure single changes of a plan in one scan from the first layer to the last."""
        model = self._converted(items)
        built = [(strategy_of(change), change, file) for change, file in changes]
        fits = any(strategy.fits for strategy, _, _ in built)
        scan = Scan(model, self.base, self.yardstick, self.rows() if fits else None)
        for strategy, change, file in sorted(built, key=lambda entry: entry[1].start):
            while scan.layer < change.start:
                scan.advance()
            try:
                figures = scan.figures_with(strategy, change.stop - change.start)
            except InputError as error:
                self.log(f"choose: layer {change.start}: {error.message}")
                write_atomically(file, b"")
            else:
                self._save(file, figures)

    def _converted(self, items: Sequence[PlanItem]) -> HybridForCausalLM:
        return converted_copy(self.base, assignments_of(items), self.rows, self.yardstick.keep)

    def _save(self, file: Path, figures: Figures) -> None:
        damage = MeasuredDamage(**self.yardstick.damage(figures))
        write_atomically(file, damage.model_dump_json().encode())

    def _file(self, items: Sequence[PlanItem], change: PlanItem | None = None) -> Path:
        def fields(item: PlanItem) -> list[object]:
            return [item.start, item.stop, item.strategy, item.params]

        key = identity([list(map(fields, items)), fields(change) if change else None])
        return self.folder / f"{key[:24]}.json"
