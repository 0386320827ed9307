"""n-gram overlap on constructed texts."""

import json

import pytest

from layerwright.tasks.evaluate.metrics.overlap import Overlap


def words(start: int, stop: int) -> str:
    return " ".join(f"w{i}" for i in range(start, stop))


def text(folder, *documents: dict) -> object:
    folder.mkdir()
    lines = [json.dumps(document) for document in documents]
    (folder / "documents.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def texts(tmp_path):
    return {
        "tuned": text(tmp_path / "tuned", {"text": words(0, 20)}, {"text": words(20, 40)}),
        "same": text(tmp_path / "same", {"text": words(0, 20).upper().replace(" ", ", ")}),
        "half": text(tmp_path / "half", {"text": words(0, 13) + " " + words(100, 112)}),
        "apart": text(tmp_path / "apart", {"text": words(200, 260)}),
        "across": text(tmp_path / "across", {"text": words(14, 27)}),
        "short": text(tmp_path / "short", {"text": words(0, 12)}),
        "chat": text(
            tmp_path / "chat",
            {"messages": [{"role": "user", "content": words(0, 10)},
                          {"role": "assistant", "content": words(10, 20)}]},
        ),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "share", "count"),
    [
        ("same", 1.0, 8),  # 20 words have 8 runs of 13; case and punctuation do not matter
        ("half", 1 / 13, 13),
        ("apart", 0.0, 48),
        ("across", 0.0, 1),  # n-grams do not run from one document into the next
        ("chat", 1.0, 8),
    ],
)
def test_share_of_ngrams(make_arms, values, hybrid, texts, name, share, count):
    metric = Overlap(texts=(name,), against="tuned")
    arms = make_arms([metric], texts, candidate=hybrid())
    found = values(metric, arms)[f"overlap.{name}", "candidate"]
    assert found.value == pytest.approx(share)
    assert found.count == count
    assert metric.needed_texts() == (name, "tuned")


def test_a_text_without_ngrams_has_no_value(make_arms, values, hybrid, texts):
    metric = Overlap(texts=("short",), against="tuned")
    found = values(metric, make_arms([metric], texts, candidate=hybrid()))
    assert found["overlap.short", "candidate"].value is None
    assert "13 words" in found["overlap.short", "candidate"].detail


def test_the_length_of_the_ngrams_is_an_option(make_arms, values, hybrid, texts):
    metric = Overlap(texts=("across", "apart"), against="tuned", n=5)
    found = values(metric, make_arms([metric], texts, candidate=hybrid()))
    assert found["overlap.across", "candidate"].value == pytest.approx(5 / 9)
    assert found["overlap.apart", "candidate"].value == 0
