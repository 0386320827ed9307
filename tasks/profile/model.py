"""The step: one pass that all block profilers share, then those that run the model themselves."""

from __future__ import annotations

import time
from dataclasses import replace

from layerwright.tasks.components import build
from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import Spec, identity
from layerwright.tasks.contracts.profile import CacheGeometry, LayerProfile, ModelProfile
from layerwright.tasks.contracts.references import ModelRef, TextRef
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.loading import load_tokenizer
from layerwright.tasks.offload.offload import load_streamed
from layerwright.tasks.passes.batches import token_rows
from layerwright.tasks.passes.states import Spill
from layerwright.tasks.profile.base import Findings, ModelProfiler, Profiler, SharedPass, Subject
from layerwright.tasks.progress import progress
from layerwright.tasks.recipe.profile import ProfileOptions
from layerwright.tasks.strategies.base import Strategy


def profile_model(
    model: ModelRef,
    text: TextRef,
    options: ProfileOptions,
    strategies: tuple[Spec, ...],
    ctx: Context,
) -> ModelProfile:
    """Measure every layer of a base model.

    Args:
        text: calibration text.
        strategies: what the layers may become; sensitivity tries each but ``keep``.

    Raises:
        InputError: an unknown profiler or option, a text that is too short, or rows that cannot
            give what a profiler measures.
    """
    started = time.perf_counter()
    profilers = [
        build(Profiler, spec, where=f"profile.profilers.{index}")
        for index, spec in enumerate(options.profilers)
    ]
    for index, spec in enumerate(strategies):
        build(Strategy, spec, where=f"strategies.{index}")
    folder = ctx.store.open_tree(model.sha256)
    tokenizer = load_tokenizer(folder)
    rows = token_rows(
        ctx.store.open_tree(text.sha256),
        tokenizer,
        options.rows,
        options.row_tokens,
        what=options.text,
    )
    with (
        load_streamed(folder, ctx.device, resident_bytes=ctx.memory_bytes) as loaded,
        progress() as bar,
    ):
        base = loaded.model
        subject = Subject(
            base, tokenizer, rows, strategies, ctx.workdir, ctx.seed, bar, ctx.log,
            keep=loaded.keep_states(ctx.workdir / "states"),
        )  # fmt: skip
        found = run_profilers(profilers, subject)
    ctx.log(f"profiled {model.layers} layers on {rows.numel():,} tokens")
    return ModelProfile(
        model_sha256=model.sha256,
        text_sha256=text.sha256,
        tokens=rows.numel(),
        layers=_by_layer(found, len(base.model.layers)),
        geometry=cache_geometry(base),
        reference={key: value for one in found for key, value in one.reference.items()},
        seconds=time.perf_counter() - started,
    )


def run_profilers(profilers: list[Profiler], subject: Subject) -> list[Findings]:
    """All findings; the block profilers share one pass over the rows."""
    shared = SharedPass(profilers, subject.model, subject.rows)
    layers = len(subject.model.model.layers)
    job = subject.bar.add_task("profile", total=layers * len(subject.rows))
    what = identity([[type(one).name, one.model_dump()] for one in profilers])[:16]
    # in files even where the model fits: memory then does not grow with the rows
    found = shared.run(
        Spill(subject.workdir / "rows"),
        subject.workdir / f"blocks-{what}",
        lambda visits: subject.bar.advance(job, visits),
    )
    scores = tuple(_scores(found, layer) for layer in range(layers))
    informed = replace(subject, scores=scores)
    return found + [p.run(informed) for p in profilers if isinstance(p, ModelProfiler)]


def cache_geometry(model: HybridForCausalLM) -> CacheGeometry:
    """What the caches of the base's layers are made of, in the model's own dtype."""
    config = model.config
    mixers = [spec["mixer"] for spec in config.layer_specs]
    # a sliding window counts the query itself, which the cache need not hold before it comes
    kept = tuple(m["window"] - 1 if m["kind"] == "streaming" else None for m in mixers)
    return CacheGeometry(
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        element_bytes=model.dtype.itemsize,
        window_tokens=kept if any(kept) else (),
    )


def _by_layer(found: list[Findings], layers: int) -> tuple[LayerProfile, ...]:
    return tuple(
        LayerProfile(
            layer=layer,
            scores=_scores(found, layer),
            damage=tuple(d for one in found if one.damage for d in one.damage[layer]),
        )
        for layer in range(layers)
    )


def _scores(found: list[Findings], layer: int) -> dict[str, float]:
    return {k: v for one in found if one.scores for k, v in one.scores[layer].items()}
