"""Texts against references."""

import pytest

from layerwright.tasks.probes.text_match import contains, exact, rouge_l


@pytest.mark.parametrize(
    ("text", "references", "is_exact", "does_contain", "f1"),
    [
        (" There was  a King\n", ["there was a king"], True, True, 1.0),
        ("yes, there was a king.", ["there was a king"], False, True, 2 * 0.8 / 1.8),
        ("a king was there", ["there was a king"], False, False, 0.5),  # "a king" is in order
        ("low", ["over the fields", "low"], True, True, 1.0),
        ("", ["low"], False, False, 0.0),
        ("", [""], True, True, 1.0),
        ("Привет, мир", ["привет мир"], False, False, 1.0),
        ("天気がいい", ["天気はいい"], False, False, 0.8),
    ],
)
def test_matches(text, references, is_exact, does_contain, f1) -> None:
    assert exact(text, references) == is_exact
    assert contains(text, references) == does_contain
    assert rouge_l(text, references) == pytest.approx(f1)


def test_rouge_is_the_librarys_own_on_plain_english() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    said, wanted = "The cat sat on the mat and slept.", "A cat slept on the old mat."
    theirs = RougeScorer(["rougeL"]).score(wanted, said)["rougeL"].fmeasure
    assert rouge_l(said, [wanted]) == pytest.approx(theirs)
