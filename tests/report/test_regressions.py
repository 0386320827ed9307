"""The worst regressions: which items, in which order, and never as markup."""

from report.example_bundle import bundle
from report.page_reader import Page, check_form, check_self_contained

from layerwright.tasks.contracts.evaluation import EvalReport, Measurement
from layerwright.tasks.contracts.items import ItemResult, Words
from layerwright.tasks.report.bundle import ReportBundle
from layerwright.tasks.report.page import render_page
from layerwright.tasks.report.regressions import MAX_CHARACTERS, SHOWN, regressions

HOSTILE = "</td><script>alert(1)</script>{{ 7 * 7 }}\n& more"


def report(*higher: str, lower: tuple[str, ...] = ()) -> EvalReport:
    return EvalReport(
        base_sha256="b" * 64,
        candidate_sha256="c" * 64,
        device="cpu",
        measurements=tuple(
            Measurement(
                metric=m, arm="candidate", value=0.5, unit="share", higher_is_better=m in higher
            )
            for m in (*higher, *lower)
        ),
    )


def pair(metric: str, item: str, base: object, candidate: object, said: str = "no") -> list:
    """Both arms' results: True and False are right and wrong, numbers are values."""
    return [
        ItemResult(
            metric=metric,
            arm=arm,
            item=item,
            words=Words(prompt=f"ask {item}", expected="yes", said=words),
            **({"correct": result} if isinstance(result, bool) else {"value": result}),
        )
        for arm, result, words in (("base", base, "yes"), ("candidate", candidate, said))
    ]


def test_items_that_were_lost_and_no_others() -> None:
    items = [
        *pair("generation.sums", "a", True, True),
        *pair("generation.sums", "b", True, False),
        *pair("generation.sums", "c", False, True),
        *pair("generation.sums", "d", False, False),
        *pair("generation.sums", "e", True, False, "x" * (MAX_CHARACTERS + 1)),
        ItemResult(metric="perplexity.docs", arm="base", item="row 0", value=1.0),
        ItemResult(metric="perplexity.docs", arm="candidate", item="row 0", value=9.0),
    ]
    (found,) = regressions(report("generation.sums"), items)
    assert (found.metric, found.lost, found.items) == ("generation.sums", 2, 5)
    assert found.right_or_wrong
    assert [one.item for one in found.worst] == ["b", "e"]
    first, long = found.worst
    assert (first.prompt, first.base_said, first.candidate_said) == ("ask b", "yes", "no")
    assert long.candidate_said == "x" * MAX_CHARACTERS + " …"


def test_the_largest_losses_first_whichever_way_is_better() -> None:
    items = [
        one
        for n in range(8)
        for one in (
            *pair("generation.mine", f"m{n}", 1.0, 1 - n / 10),
            *pair("words_wrong.mine", f"w{n}", 0.0, n / 10),
        )
    ]
    items += pair("generation.mine", "unknown", 1.0, None)
    better, worse = regressions(report("generation.mine", lower=("words_wrong.mine",)), items)
    assert [one.item for one in better.worst] == ["m7", "m6", "m5", "m4", "m3"]
    assert [one.item for one in worse.worst] == ["w7", "w6", "w5", "w4", "w3"]
    assert len(better.worst) == SHOWN
    assert (better.lost, better.items, better.right_or_wrong) == (7, 9, False)


def test_texts_are_text_on_the_page() -> None:
    items = pair("generation.mine", HOSTILE, 1.0, 0.25, HOSTILE)
    fields = {name: getattr(bundle(), name) for name in ReportBundle.model_fields}
    found = regressions(report("generation.mine"), items)
    text = render_page(ReportBundle(**(fields | {"regressions": found})))
    page = Page(text)
    check_form(page)
    check_self_contained(text)
    assert "<script>" not in text
    assert "{{ 7 * 7 }}" in page.text
    assert page.says("1 of 1 items", "candidate", section="regressions")
    assert page.says("0.25", section="regressions")
    assert not Page(render_page(bundle())).has("h2", "regressions")


def test_an_untouched_candidate_has_none() -> None:
    assert regressions(report("generation.sums"), pair("generation.sums", "a", True, True)) == ()
