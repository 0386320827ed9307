"""The page: complete, self-contained, escaped, deterministic, and whole where the bundle is not."""

import subprocess
import sys
from html import escape

import pytest
from facts import missing
from report.example_bundle import bundle, measurement
from report.page_reader import Page, check_form, check_self_contained

from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.report.bundle import ReportBundle
from layerwright.tasks.report.page import render_page

HOSTILE = "<script>alert(1)</script>\"'&</style>{{ 7 * 7 }}"


def changed(given: ReportBundle, **update: object) -> ReportBundle:
    """A validated copy with some fields replaced."""
    fields = {name: getattr(given, name) for name in ReportBundle.model_fields}
    return ReportBundle(**(fields | update))


def with_measurements(given: ReportBundle, *measurements: object) -> ReportBundle:
    report = given.evaluation.model_copy(update={"measurements": tuple(measurements)})
    return changed(given, evaluation=report, cost=None)  # which followed from the others


def bare() -> ReportBundle:
    """As little as a run can leave: nothing measured, nothing tuned, nothing registered."""
    full = bundle(accepted=False)
    layers = tuple(layer.model_copy(update={"scores": {}, "damage": ()}) for layer in
                   full.profile.layers)  # fmt: skip
    items = tuple(PlanItem(start=i, stop=i + 1, strategy="keep") for i in range(full.plan.layers))
    return with_measurements(
        changed(
            full,
            finetune=None,
            texts={},
            seconds={},
            cache_hits=(),
            environment={},
            profile=full.profile.model_copy(update={"layers": layers}),
            plan=full.plan.model_copy(update={"items": items}),
            gate=full.gate.model_copy(update={"checks": ()}),
        )
    )


CASES = {
    "accepted": bundle,
    "rejected": lambda: bundle(accepted=False),
    "control": lambda: bundle(control=True),
    "layers-80": lambda: bundle(layers=80),
    "bare": bare,
}


@pytest.fixture(params=CASES)
def made(request: pytest.FixtureRequest) -> ReportBundle:
    return CASES[request.param]()


def test_page_is_well_formed_and_accessible(made: ReportBundle) -> None:
    check_form(Page(render_page(made)))


def test_page_loads_nothing(made: ReportBundle) -> None:
    check_self_contained(render_page(made))


def test_same_bundle_gives_same_bytes(made: ReportBundle) -> None:
    again = ReportBundle.model_validate_json(made.model_dump_json())
    assert render_page(again) == render_page(made)


def test_every_check_metric_and_layer_is_there(made: ReportBundle) -> None:
    text = render_page(made)
    page = Page(text)
    for check in made.gate.checks:
        assert check.metric in page.text
        assert check.rule in page.text
        assert check.reason in page.text
    for m in made.evaluation.measurements:
        assert m.metric in page.text
    titles = [li.get("title") or "" for li in page.all("li")]
    summary = made.plan.summary()
    for layer, strategy in summary.items():
        assert any(title.startswith(f"layer {layer}: {strategy}") for title in titles)
    for item in made.plan.items:
        assert item.reason in page.text
    for step, spent in made.seconds.items():
        assert step in page.text
        assert f"{spent:.0f} s" in page.text or spent >= 60 or f"{spent:.1f} s" in page.text
    for sha256 in (made.model.sha256, made.checkpoint.sha256, made.converted.sha256):
        assert sha256 in page.text
    assert escape(made.recipe_yaml, quote=False) in text.replace("&#34;", '"')


def test_verdict_of_an_accepted_run() -> None:
    page = Page(render_page(bundle()))
    assert "ACCEPTED" in page.text
    assert "REJECTED" not in page.text
    for facts in (
        ("18 of 30", "streaming (sinks 4, window 252)", "12"),
        ("8,192 tokens", "151 MiB", "360 MiB", "−58.1 %"),  # noqa: RUF001
        ("perplexity", "1.3 %", "olmo_passages"),
        ("smollm2-135m-streaming", "version 3", "challenger"),
    ):
        assert page.says(*facts, section="verdict"), facts
    assert page.says("23 Dec 2026, 08:21 UTC", section="gate")


def test_verdict_of_a_rejected_run_says_why_before_anything_else() -> None:
    made = bundle(accepted=False)
    page = Page(render_page(made))
    assert page.says("REJECTED", section="verdict")
    assert page.says("2", "failed", section="verdict")
    assert "inconclusive" not in page.text
    failed = [c for c in made.gate.checks if not c.passed and c.severity == "fail"]
    assert len(failed) == 2
    for check in failed:
        assert page.says(check.metric, check.reason, section="verdict")


def test_hostile_strings_stay_text() -> None:
    given = bundle()
    items = tuple(item.model_copy(update={"reason": HOSTILE}) for item in given.plan.items)
    checks = tuple(c.model_copy(update={"reason": HOSTILE}) for c in given.gate.checks)
    texts = {HOSTILE: next(iter(given.texts.values()))}
    made = with_measurements(
        changed(
            given,
            recipe_name=HOSTILE,
            recipe_yaml=HOSTILE,
            run_id=HOSTILE,
            texts=texts,
            environment={HOSTILE: HOSTILE},
            plan=given.plan.model_copy(update={"items": items, "selector": HOSTILE}),
            gate=given.gate.model_copy(update={"checks": checks}),
        ),
        *given.evaluation.measurements,
        measurement(f"perplexity.{HOSTILE}", "base", 12.0, HOSTILE, half=1.0, detail=HOSTILE),
        measurement(HOSTILE, "candidate", None, HOSTILE, detail=HOSTILE),
    )
    text = render_page(made)
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.elements}
    assert text.count("</style>") == 1
    assert page.text.count(HOSTILE) > 30


def test_without_finetuning_and_registration() -> None:
    made = changed(bundle(), finetune=None, registration=None)
    page = Page(render_page(made))
    assert page.says("no", "fine-tuning", section="finetune")
    assert not page.has("figure", "finetune")
    assert page.says("not registered", section="verdict")
    assert made.checkpoint == made.converted


def test_what_was_not_measured_is_said() -> None:
    given = bundle()
    found = [
        m.model_copy(update={"value": None, "low": None, "high": None, "detail": "key lost"})
        if m.metric == "recall.passkey.600"
        else m
        for m in given.evaluation.measurements
        if m.metric != "key_log_prob.passkey.600"
    ]
    page = Page(render_page(with_measurements(given, *found)))
    assert "not measured" in page.text
    assert "candidate: key lost" in page.text
    assert "key_log_prob" not in page.text


def test_every_value_may_be_missing() -> None:
    given = bundle(control=True)
    empty = [
        m.model_copy(update={"value": None, "low": None, "high": None})
        for m in given.evaluation.measurements
    ]
    page = Page(render_page(with_measurements(given, *empty)))
    assert page.says("no", "saving", section="verdict")
    assert page.text.count("not measured") >= len(empty)


def test_one_length_and_no_length_at_all() -> None:
    made = with_measurements(
        bundle(),
        measurement("kv_bytes.512", "base", 0, "bytes"),
        measurement("kv_bytes.512", "candidate", 0, "bytes"),
        measurement("prefill_ms.0", "candidate", 3.5, "ms"),
    )
    page = Page(render_page(made))
    assert "no prediction" in page.text
    assert "prefill_ms.0" in page.text.split("Other measurements", 1)[1]


def test_bare_bundle_says_what_is_missing() -> None:
    page = Page(render_page(bare()))
    for section, *facts in (
        ("verdict", "all 30 layers"),
        ("verdict", "no", "saving"),
        ("verdict", "no", "quality"),
        ("verdict", "no check"),
        ("gate", "no check"),
        ("quality", "no", "metric"),
        ("quality", "overlap", "was not measured"),
        ("saving", "no", "KV bytes"),
        ("saving", "not", "measured"),
        ("finetune", "no", "fine-tuning"),
    ):
        assert page.says(*facts, section=section), (section, facts)
    for section in ("gate", "quality", "saving", "speed", "finetune"):
        assert page.has("p", section)
        assert not page.has("table", section)
        assert not page.has("figure", section)


def test_unknown_metrics_and_scores_are_shown() -> None:
    given = bundle()
    layers = tuple(
        layer.model_copy(update={"scores": {"curl": 0.25 * layer.layer}})
        for layer in given.profile.layers
    )
    profile: ModelProfile = given.profile.model_copy(update={"layers": layers})
    page = Page(
        render_page(
            with_measurements(
                changed(given, profile=profile),
                *given.evaluation.measurements,
                measurement("energy.joules_per_token", "base", 1.75, "J"),
                measurement("energy.joules_per_token", "candidate", 1.5, "J"),
                measurement("kv_bytes.peak", "candidate", 2048, "bytes"),
            )
        )
    )
    tail = page.text.split("Other measurements", 1)[1]
    assert "energy.joules_per_token" in tail
    assert "1.75" in tail
    assert "−14.3 %" in tail  # noqa: RUF001
    assert "kv_bytes.peak" in tail
    assert "2 KiB" in tail
    labels = [svg.get("aria-label") or "" for svg in page.all("svg")]
    (label,) = [label for label in labels if label.startswith("curl")]
    assert not missing(label, "0", "7.25", "layer 29")


def test_control_arm_is_named_or_its_absence() -> None:
    assert Page(render_page(bundle())).says("no control arm", section="quality")
    page = Page(render_page(bundle(control=True)))
    assert not page.says("no control arm")
    assert "Control" in [word.strip() for word in page.words]


def test_an_item_over_several_layers_is_one_row_and_many_cells() -> None:
    given = bundle()
    fields = {"params": {}, "reason": "linear together"}
    plan = ConversionPlan(
        model_sha256=given.plan.model_sha256,
        layers=30,
        context_tokens=8192,
        selector="by hand",
        items=(
            PlanItem(start=0, stop=12, strategy="keep"),
            PlanItem(start=12, stop=20, strategy="linear", **fields),
            PlanItem(start=20, stop=30, strategy="local"),
        ),
    )
    page = Page(render_page(changed(given, plan=plan)))
    titles = [li.get("title") for li in page.all("li")]
    (title,) = [title for title in titles if title and title.startswith("layer 15:")]
    assert not missing(title, "linear", "12 to 19", "linear together")
    assert page.text.count("12 to 19") == 1
    assert page.says("8 of 30", "linear", "10 of 30", "local", "12", section="verdict")


def test_a_fresh_process_needs_neither_torch_nor_matplotlib() -> None:
    # a fully cached run renders the page in seconds only because nothing heavy is imported
    code = (
        "import sys, layerwright.tasks.report.page, layerwright.tasks.report.summary;"
        "print([m for m in ('torch', 'matplotlib', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_which_implementations_ran_is_said() -> None:
    given = bundle()
    ran = ("gated_recurrence: blockwise", "streaming_attention: blockwise")
    assert Page(render_page(given)).says("cpu", *ran, section="quality")
    silent = changed(given, evaluation=given.evaluation.model_copy(update={"kernels": {}}))
    page = Page(render_page(silent))
    assert page.says("on cpu", section="quality")
    assert not page.says("blockwise")
