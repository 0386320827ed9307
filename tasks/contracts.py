"""What the steps hand to each other: small frozen JSON documents, never tensors.

Their JSON is the task result, the artifact and the report's input. Units stand in field names.
``uri`` fields say where a thing lies and are left out of every identity; ``sha256`` says what it
is.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Arm = Literal["base", "candidate", "champion", "control"]
ARMS: tuple[Arm, ...] = ("base", "candidate", "champion", "control")
Aggregate = Literal["mean", "exp_mean"]

# strict: `rows: true` and `rows: "4"` are mistakes, not numbers
Positive = Annotated[int, Field(gt=0, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=1)]
FrontierBudget = Literal["kv_bytes_ratio", "prefill_seconds_ratio", "decode_seconds_ratio"]


class Contract(BaseModel):
    """Frozen, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


INCIDENTAL = frozenset({"uri", "data_root", "seconds"})  # where a thing lies, how long it took


def identity(value: Any) -> str:
    """sha256 over the canonical JSON of contracts, without their incidental fields.

    Two values with the same identity are interchangeable as inputs of a step.
    """

    def strip(node: Any) -> Any:
        if isinstance(node, dict):
            return {k: strip(v) for k, v in node.items() if k not in INCIDENTAL}
        if isinstance(node, list):
            return [strip(v) for v in node]
        return node

    def default(node: Any) -> Any:
        if isinstance(node, BaseModel):
            return strip(node.model_dump(mode="json"))
        raise TypeError(f"{type(node).__name__} has no identity")

    text = json.dumps(strip(value), default=default, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Spec(BaseModel):
    """A component by name, with its options beside the name: ``{name: streaming, window: 252}``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class TreeRef(Contract):
    """A folder in the store. ``sha256`` is the digest of its manifest.json."""

    uri: str
    sha256: str
    bytes: int


class ModelRef(TreeRef):
    """A base model as a normalised checkpoint: safetensors, config, tokenizer, chat template."""

    source: str
    family: str
    layers: int
    hidden_size: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    max_positions: int
    parameters: int
    dtype: str


LINEAGE = "layerwright.json"  # in every checkpoint: base, plan, what it was fitted and tuned on


class CheckpointRef(TreeRef):
    """A converted checkpoint; it loads with Transformers alone."""

    base_sha256: str
    plan_sha256: str


class TextRef(TreeRef):
    """``documents.jsonl``, a ``{"text": ...}``, ``{"messages": [...]}`` or ``{"item": {...}, "at":
    "file:line"}`` a line; or files as they were."""

    source: str
    documents: int
    characters: int


class Calibration(Contract):
    """Rows of a text that conversion may fit on: ``rows`` of ``row_tokens`` tokens."""

    text: TextRef
    rows: int
    row_tokens: int


class MeasuredDamage(Contract):
    """What a conversion costs against the base.

    ``language_nats``: rise of the mean NLL per text token. ``kl_nats``: mean KL to the base per
    text token. ``probes``: fall of the mean log-probability per token of the answer, by recall
    probe; ``recall_nats`` is their mean. Positive is worse.
    """

    language_nats: float
    recall_nats: float
    kl_nats: float | None = None
    probes: dict[str, float] = {}


class Damage(MeasuredDamage):
    """What converting one layer alone, all others kept, costs.

    With ``layers`` above 1 it is the damage of a run of that many layers from this one on,
    converted as one.
    """

    strategy: Spec
    layers: int = 1


class LayerProfile(Contract):
    """Everything that was measured of one layer; a score's meaning is its profiler's."""

    layer: int
    scores: dict[str, float] = {}
    damage: tuple[Damage, ...] = ()

    def damage_of(self, strategy: Spec, layers: int = 1) -> Damage | None:
        """The damage of one strategy with exactly these options, where it was measured."""
        return next((d for d in self.damage if (d.strategy, d.layers) == (strategy, layers)), None)


class CacheGeometry(Contract):
    """What the caches of a base's layers are made of.

    ``window_tokens``: per layer, how many tokens the base itself keeps; None keeps all. Empty
    where all layers do.
    """

    kv_heads: int
    head_dim: int
    element_bytes: int
    window_tokens: tuple[int | None, ...] = ()

    @property
    def bytes_per_token(self) -> int:
        """Of one layer's keys and values."""
        return 2 * self.kv_heads * self.head_dim * self.element_bytes

    def layer_bytes(self, layer: int, context_tokens: int) -> int:
        """KV bytes of one layer as it is in the base, batch 1."""
        window = self.window_tokens[layer] if self.window_tokens else None
        kept = context_tokens if window is None else min(window, context_tokens)
        return kept * self.bytes_per_token


class ModelProfile(Contract):
    """One profile pass over a model."""

    model_sha256: str
    text_sha256: str
    tokens: int
    layers: tuple[LayerProfile, ...]
    geometry: CacheGeometry
    reference: dict[str, float] = {}  # whole-model figures: "nll", "key_log_prob", ...
    seconds: float = 0.0

    def base_kv_bytes(self, context_tokens: int) -> int:
        """KV bytes of the whole base model, batch 1."""
        return sum(self.geometry.layer_bytes(p.layer, context_tokens) for p in self.layers)


class PassTime(Contract):
    """Time of a model or of layers of it: to read a context, and for each token behind it."""

    prefill_seconds: float
    decode_seconds_per_token: float


class PlanItem(Contract):
    """Layers ``start`` to ``stop`` (exclusive) become one thing."""

    start: int = Field(ge=0)
    stop: int
    strategy: str
    params: dict[str, Any] = {}
    reason: str = ""
    predicted_language_nats: float | None = None
    predicted_recall_nats: float | None = None
    predicted_kv_bytes: int | None = None  # at the plan's context_tokens, batch 1
    predicted_time: PassTime | None = None  # of these layers, at the plan's context_tokens

    @model_validator(mode="after")
    def _ordered(self) -> PlanItem:
        if self.stop <= self.start:
            raise ValueError(f"stop greater than start ({self.start}), not {self.stop}")
        return self

    @property
    def spec(self) -> Spec:
        return Spec(name=self.strategy, **self.params)


class ConversionPlan(Contract):
    """Which layer becomes what. The items cover the layers exactly, in order; editable by hand."""

    model_sha256: str
    layers: int = Field(gt=0, le=10_000)
    context_tokens: int = Field(gt=0)
    selector: str
    items: tuple[PlanItem, ...]
    repaired_from: str | None = None  # identity of the plan that the gate rejected
    costs_sha256: str | None = None  # of the cost table that times were predicted from
    base_time: PassTime | None = None  # of the whole base, predicted
    outside_time: PassTime | None = None  # of what is outside the layers: embeddings, norm, head

    @model_validator(mode="after")
    def _covers(self) -> ConversionPlan:
        expected = 0
        for item in self.items:
            if item.start != expected:
                raise ValueError(
                    f"items that cover layers 0 to {self.layers - 1} exactly, in order: "
                    f"layer {min(item.start, expected)} is "
                    f"{'missing' if item.start > expected else 'covered twice'}"
                )
            expected = item.stop
        if expected != self.layers:
            raise ValueError(
                f"items that cover layers 0 to {self.layers - 1} exactly: they end at {expected}"
            )
        return self

    def summary(self) -> dict[str, str]:
        """Strategy per layer index, the plan as JSON consumers see it."""
        return {
            str(layer): item.strategy
            for item in self.items
            for layer in range(item.start, item.stop)
        }


class Measurement(Contract):
    """One figure of one arm. ``value`` None means that it could not be measured.

    ``low`` and ``high`` bound its 95 % interval where the metric gives one; ``count`` is the
    number of items (tokens, prompts, repeats) behind it. ``aggregate`` says how the value follows
    from the per-item results, where it does: their weighted mean, or exp of it.
    """

    metric: str
    arm: Arm
    value: float | None
    unit: str
    higher_is_better: bool
    low: float | None = None
    high: float | None = None
    count: int = 0
    detail: str = ""
    aggregate: Aggregate | None = None

    @field_validator("value", "low", "high")
    @classmethod
    def _finite(cls, value: float | None) -> float | None:
        # JSON has no NaN: what is not a number was not measured, and the gate fails on it
        return value if value is not None and math.isfinite(value) else None


class Champion(Contract):
    """The version that the registry's champion alias points at.

    ``checkpoint`` None means that it cannot be measured beside the candidate, for ``reason``.
    """

    version: str
    checkpoint: CheckpointRef | None = None
    reason: str = ""


class EvalReport(Contract):
    """All arms, measured in one run on the same items.

    ``items`` is a tree with every per-item result (tasks/items.py). ``kernels`` are the
    implementations that ran, by operator; none where all was already measured.
    """

    base_sha256: str
    candidate_sha256: str
    champion: Champion | None = None
    control_sha256: str | None = None
    device: str
    kernels: dict[str, tuple[str, ...]] = {}
    measurements: tuple[Measurement, ...]
    items: TreeRef | None = None
    seconds: float = 0.0

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms that were measured, base first."""
        measured = {m.arm for m in self.measurements}
        return tuple(arm for arm in ARMS if arm in measured)

    def value(self, metric: str, arm: Arm) -> float | None:
        found = self.find(metric, arm)
        return found.value if found else None

    def find(self, metric: str, arm: Arm) -> Measurement | None:
        return next((m for m in self.measurements if (m.metric, m.arm) == (metric, arm)), None)

    def by_arm(self, arm: Arm) -> dict[str, float | None]:
        return {m.metric: m.value for m in self.measurements if m.arm == arm}


class PlanComparison(Contract):
    """Plans measured side by side on the same tokens, by the name that the survey gives them."""

    base_sha256: str
    device: str
    plans: dict[str, tuple[Measurement, ...]]
    seconds: float = 0.0

    def values(self, plan: str) -> dict[str, float | None]:
        """The plan's own figures (arm ``candidate``)."""
        return {m.metric: m.value for m in self.plans[plan] if m.arm == "candidate"}


class Registration(Contract):
    """A model version in the registry."""

    name: str
    version: str
    alias: str
    found: bool  # it was there already, and its manifest digest verified


class RepairRound(Contract):
    """A plan that the gate rejected, and what was done about it.

    ``given_back``: layers that the next round kept; empty where nothing more was done, with the
    reason in ``stopped``.
    """

    plan: ConversionPlan
    candidate_sha256: str
    failed_checks: tuple[str, ...]
    given_back: tuple[int, ...] = ()
    stopped: str = ""
