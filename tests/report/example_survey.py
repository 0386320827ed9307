"""A survey of a 12-layer model: plans at equal budget, one that ruins it, and a frontier."""

from report.example_bundle import GEOMETRY, bundle, digest, measurement
from report.example_profile import rich_profile
from report.shown import presentation

from layerwright.tasks.contracts.evaluation import Measurement, PlanComparison
from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem
from layerwright.tasks.contracts.survey import Stability
from layerwright.tasks.report.bundle import ReportBundle, RunBundle, SurveyBundle, SurveyPlan

LAYERS, CONTEXT, KEPT = 12, 8192, 255
# name: (selector, converted layers, perplexity, half of its interval, budget)
PLANS = {
    "dense": ("keep_all", (), 29.3, 1.0, None),
    "by_damage": ("milp", (0, 1, 2, 9, 10, 11), 31.0, 1.0, None),
    "laziest": ("lightransfer", (3, 4, 5, 6, 7, 8), 35.7, 1.2, None),
    "every_other": ("listed", (0, 2, 4, 6, 8, 10), 36.1, 1.2, None),
    "ruined": ("convert_all", tuple(range(LAYERS)), 2.3e6, None, None),
    "by_damage at 0.75": ("milp", (0, 1, 2), 29.9, 1.0, 0.75),
    "by_damage at 0.5": ("milp", (0, 1, 2, 9, 10, 11), 31.0, 1.0, 0.5),
}


def survey_plan(name: str) -> ConversionPlan:
    selector, converted, *_ = PLANS[name]
    items = [
        PlanItem(
            start=i,
            stop=i + 1,
            strategy="streaming" if i in converted else "keep",
            params={"sinks": 4, "window": 252} if i in converted else {},
            predicted_language_nats=0.01 if i in converted else 0.0,
            predicted_recall_nats=0.02 if i in converted else 0.0,
            predicted_kv_bytes=(KEPT if i in converted else CONTEXT) * GEOMETRY.bytes_per_token,
        )
        for i in range(LAYERS)
    ]
    return ConversionPlan(
        model_sha256=digest("base"),
        layers=LAYERS,
        context_tokens=CONTEXT,
        selector=selector,
        items=tuple(items),
    )


def measurements(name: str) -> tuple[Measurement, ...]:
    _, converted, value, half, _ = PLANS[name]
    ratio = half and 0.2 * half / 29.3
    return (
        measurement("perplexity.test", "base", 29.3, "perplexity", half=1.0),
        measurement("perplexity.test", "candidate", value, "perplexity", half=half),
        measurement("perplexity_ratio.test", "candidate", value / 29.3, "ratio", half=ratio),
        measurement("kl_mean.test", "candidate", 0.03 * len(converted), "nats", half=0.001),
        measurement("recall.passkey.600", "base", 0.9, "share", higher=True, half=0.05),
        measurement(
            "recall.passkey.600", "candidate", 0.9 - 0.05 * len(converted), "share", higher=True
        ),
        measurement("kv_bytes.1024", "candidate", None, "bytes", detail="no room"),
    )


def stability() -> Stability:
    """The laziest layers are others on the second text, and every plan costs more there."""
    again = {
        "by_damage": survey_plan("by_damage"),
        "laziest": survey_plan("every_other").model_copy(update={"selector": "lightransfer"}),
    }
    held_out = ("docs-held-out", "chats-held-out")

    def compared(factor: float) -> PlanComparison:
        plans = {}
        for number, name in enumerate(again, 1):
            plans[name] = tuple(
                measurement(f"{family}.{text}", "candidate", value, unit, half=0.01)
                for text, domain in zip(held_out, (1, 2), strict=True)
                for family, value, unit in (
                    ("perplexity_ratio", 1 + 0.05 * number * domain * factor, "ratio"),
                    ("kl_mean", 0.03 * number * domain * factor, "nats"),
                )
            )
        return PlanComparison(
            base_sha256=digest("base"), device="cpu", plans=plans, presentation=presentation()
        )

    return Stability(
        texts=("docs", "chats"),
        held_out=held_out,
        profile=rich_profile(LAYERS),
        plans=again,
        measured=(compared(1.0), compared(1.5)),
    )


def survey_bundle() -> SurveyBundle:
    made: ReportBundle = bundle(layers=LAYERS)
    shared = {name: getattr(made, name) for name in RunBundle.model_fields}
    folder = "/home/user/.layerwright/runs/s/plans"
    return SurveyBundle(
        **(shared | {"profile": rich_profile(LAYERS)}),
        plans={
            name: SurveyPlan(
                plan=survey_plan(name),
                file=f"{folder}/{name.replace(' ', '-')}.yaml",
                command=f"layerwright convert recipe.yaml --plan {folder}/{name}.yaml",
                budget=budget,
            )
            for name, (*_, budget) in PLANS.items()
        },
        comparison=PlanComparison(
            base_sha256=digest("base"),
            device="cpu",
            plans={name: measurements(name) for name in PLANS},
            presentation=presentation(),
        ),
        stability=stability(),
    )
