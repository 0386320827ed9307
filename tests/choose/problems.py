"""Profiles for the selectors: figures of a real model, and made-up ones."""

from layerwright.tasks.choose.base import Candidate, LayerOption, Problem
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.profile import CacheGeometry, Damage, LayerProfile, ModelProfile

STREAMING = Spec(name="streaming", sinks=4, window=64)
CONTEXT, BYTES_PER_TOKEN = 8192, 1536
FULL = CONTEXT * BYTES_PER_TOKEN

# SmolLM2-135M-Instruct, each layer alone as streaming with S=4 W=64: measured rise of the NLL
NLL_RISES = [
    *(0.0064, 0.0060, 0.0199, 0.0181, 0.0107, 0.0154, 0.0066, 0.0198, 0.0365, 0.0021),
    *(0.0058, 0.0018, 0.0019, 0.0005, 0.0199, 0.0097, 0.0008, 0.0345, 0.0217, 0.0058),
    *(0.0902, 0.0046, 0.0074, 0.0405, 0.0631, 0.0005, -0.0001, -0.0022, 0.0118, 0.0302),
]


def profile(
    language: list[float],
    recall: list[float] | None = None,
    *,
    lazy: list[float] | None = None,
    scores: dict[str, list[float]] | None = None,
    spec: Spec = STREAMING,
) -> ModelProfile:
    """One layer per figure, each with its damage as ``spec``, and scores by name."""
    recall = recall or [0.0] * len(language)
    scores = (scores or {}) | ({"lazy_ratio": lazy} if lazy else {})
    return ModelProfile(
        model_sha256="a" * 64,
        text_sha256="b" * 64,
        tokens=1024,
        geometry=CacheGeometry(kv_heads=3, head_dim=64, element_bytes=4),
        layers=tuple(
            LayerProfile(
                layer=i,
                scores={name: values[i] for name, values in scores.items()},
                damage=(Damage(strategy=spec, language_nats=x, recall_nats=y),),
            )
            for i, (x, y) in enumerate(zip(language, recall, strict=True))
        ),
    )


def uniform(spec: Spec, kv_bytes: int, layers: int) -> Candidate:
    """A candidate that takes the same bytes in every layer."""
    return Candidate(
        strategy=spec,
        layers=(LayerOption(strategy=spec, kv_bytes=kv_bytes, parameters=0),) * layers,
    )


def problem(of: ModelProfile, kv_bytes: int = 67 * BYTES_PER_TOKEN) -> Problem:
    return choice(of, uniform(STREAMING, kv_bytes, len(of.layers)))


def choice(of: ModelProfile, *candidates: Candidate, **update) -> Problem:
    """A problem whose layers have no parameters, where ``update`` does not give them any."""
    counts = {"layer_parameters": (0,) * len(of.layers), "other_parameters": 0}
    fields = {"profile": of, "candidates": candidates, "context_tokens": CONTEXT}
    return Problem(**(fields | counts | update))


def impossible(of: ModelProfile, *layers: int) -> ModelProfile:
    """The same profile without a damage of these layers: they cannot become the strategy."""
    return of.model_copy(
        update={
            "layers": tuple(
                p.model_copy(update={"damage": ()}) if p.layer in layers else p for p in of.layers
            )
        }
    )


def converted(items) -> set[int]:
    """The layers that are not kept."""
    return {item.start for item in items if item.strategy != "keep"}


def covers(items, layers: int) -> bool:
    """One item per layer, in order, each with a reason."""
    return [(i.start, i.stop) for i in items] == [(n, n + 1) for n in range(layers)] and all(
        i.reason for i in items
    )
