"""The profile step: the shared pass of the block profilers, then each ModelProfiler."""

import time
from collections.abc import Sequence
from dataclasses import replace

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import identity
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
    strategies: tuple[Strategy, ...],
    ctx: Context,
) -> ModelProfile:
    """Measure every layer of a base model on a calibration text, with strategies that it may get;
    InputError if the text is too short, or the rows are too few or too short for a profiler.
    """
    started = time.perf_counter()
    folder = ctx.store.open_tree(model.sha256)
    tokenizer = load_tokenizer(folder)
    documents = ctx.store.open_tree(text.sha256)
    rows = token_rows(documents, tokenizer, options.rows, options.row_tokens, what=options.text)
    streamed = load_streamed(folder, ctx.device, resident_bytes=ctx.memory_bytes)
    with streamed as loaded, progress() as bar:
        base = loaded.model
        subject = Subject(
            base, tokenizer, rows, strategies, ctx.workdir, ctx.seed, bar, ctx.log,
            keep=loaded.keep_states(ctx.workdir / "states"),
        )  # fmt: skip
        findings = run_profilers(options.profilers, subject)
    ctx.log(f"profiled {model.layers} layers on {rows.numel():,} tokens")
    return ModelProfile(
        model_sha256=model.sha256,
        text_sha256=text.sha256,
        tokens=rows.numel(),
        layers=tuple(
            LayerProfile(
                layer=layer,
                scores=_scores(findings, layer),
                damage=tuple(d for part in findings if part.damage for d in part.damage[layer]),
            )
            for layer in range(len(base.model.layers))
        ),
        geometry=cache_geometry(base),
        reference={key: value for part in findings for key, value in part.reference.items()},
        seconds=time.perf_counter() - started,
    )


def run_profilers(profilers: Sequence[Profiler], subject: Subject) -> list[Findings]:
    """Run all profilers; the block profilers first, in a shared pass over the rows."""
    shared = SharedPass(profilers, subject.model, subject.rows)
    layers = len(subject.model.model.layers)
    job = subject.bar.add_task("profile", total=layers * len(subject.rows))
    key = identity([[type(profiler).name, profiler.model_dump()] for profiler in profilers])[:16]
    # hidden states go to files even if the model fits: memory then does not grow with the rows
    findings = shared.run(
        Spill(subject.workdir / "rows"),
        subject.workdir / f"blocks-{key}",
        lambda visits: subject.bar.advance(job, visits),
    )
    scores = tuple(_scores(findings, layer) for layer in range(layers))
    subject = replace(subject, scores=scores)
    return findings + [p.run(subject) for p in profilers if isinstance(p, ModelProfiler)]


def cache_geometry(model: HybridForCausalLM) -> CacheGeometry:
    """The sizes that determine the KV cache of the base's layers, in the model's dtype."""
    config = model.config
    mixers = [spec["mixer"] for spec in config.layer_specs or ()]
    # a sliding window includes the query, whose own key is not in the cache yet
    kept = tuple(m["window"] - 1 if m["kind"] == "streaming" else None for m in mixers)
    return CacheGeometry(
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        element_bytes=model.dtype.itemsize,
        window_tokens=kept if any(kept) else (),
    )


def _scores(findings: list[Findings], layer: int) -> dict[str, float]:
    return {k: v for part in findings if part.scores for k, v in part.scores[layer].items()}
