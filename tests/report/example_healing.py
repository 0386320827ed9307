"""A training like a real one: hidden states first, then the base's logits; the last step is worse.

Stage 1: steps 1 to 16 on MSE; stage 2: steps 17 to 40, of which step 32 was kept.
"""

import math

from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.contracts.training import (
    FinetuneReport,
    StageReport,
    TrainPoint,
    ValidationPoint,
)

FIRST, STEPS, ROW = 16, 40, 512
NLL = {0: 3.52, 8: 3.46, 16: 3.43, 24: 3.39, 32: 3.38, 40: 3.40}


def healing(checkpoint: CheckpointRef) -> FinetuneReport:
    return FinetuneReport(
        checkpoint=checkpoint,
        steps=STEPS,
        tokens=STEPS * ROW,
        trained_parameters=1_843_200,
        points=tuple(_point(step) for step in range(1, STEPS + 1)),
        validation=tuple(_validation(step, stage) for step, stage in _validated()),
        stages=(
            StageReport(
                units={"hidden_state": "mse"},
                weights={"hidden_state": 1.0},
                adapter="lora, rank 16",
                steps=FIRST,
                tokens=FIRST * ROW,
                trained_parameters=1_843_200,
                best_step=FIRST,
            ),
            StageReport(
                units={"next_token": "nats", "logit_kl": "nats"},
                weights={"logit_kl": 1.0, "next_token": 0.5},
                adapter="lora, rank 16",
                steps=STEPS - FIRST,
                tokens=(STEPS - FIRST) * ROW,
                trained_parameters=1_843_200,
                best_step=32,
                stopped_early=True,
            ),
        ),
        best_step=32,
        stopped_early=True,
        seconds=214.6,
    )


def _validated() -> list[tuple[int, int]]:
    """(step, stage); where a stage begins, the model is measured for it as well."""
    return [(0, 0), (8, 0), (16, 0), (16, 1), (24, 1), (32, 1), (40, 1)]


def _validation(step: int, stage: int) -> ValidationPoint:
    return ValidationPoint(
        stage=stage,
        step=step,
        tokens=step * ROW,
        seconds=5.0 * step,
        loss=NLL[step] / 2,
        nll=NLL[step],
        kl=NLL[step] - 3.36,
    )


def _point(step: int) -> TrainPoint:
    wave = 0.05 * math.sin(step * 1.7) + 0.03 * math.cos(step * 3.1)
    if step <= FIRST:
        values = {"hidden_state": round(0.4 * math.exp(-step / 8) + 0.1 * abs(wave), 5)}
        loss = values["hidden_state"]
    else:
        next_token = round(2.31 + 0.25 * math.exp(-step / 9) + wave, 5)
        kl = round(0.021 + 0.035 * math.exp(-step / 12) + 0.03 * abs(wave), 5)
        values = {"next_token": next_token, "logit_kl": kl}
        loss = 0.5 * next_token + kl
    return TrainPoint(
        stage=int(step > FIRST),
        step=step,
        loss=round(loss, 5),
        values=values,
        tokens=ROW * step,
        learning_rate=2e-4,
    )
