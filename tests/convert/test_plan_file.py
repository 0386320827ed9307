"""Plans as files: an exact round trip, errors with their line, and differences."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem
from layerwright.tasks.convert.plan_file import diff_plans, read_plan, write_plan
from layerwright.tasks.errors import InputError

SAFE_TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Cn", "Co", "Zl", "Zp")))
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
INTEGERS = st.integers(-(2**63) + 1, 2**63 - 1)  # a file takes no larger ones
OPTIONS = st.one_of(INTEGERS, NUMBERS, st.booleans(), SAFE_TEXT, st.lists(INTEGERS, max_size=3))


@st.composite
def plans(draw) -> ConversionPlan:
    lengths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    items, start = [], 0
    for length in lengths:
        items.append(
            PlanItem(
                start=start,
                stop=start + length,
                strategy=draw(st.sampled_from(["keep", "streaming", "null", "1e3", "yes"])),
                params=draw(
                    st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), OPTIONS)
                ),
                reason=draw(SAFE_TEXT),
                predicted_language_nats=draw(st.none() | NUMBERS),
                predicted_recall_nats=draw(st.none() | NUMBERS),
                predicted_kv_bytes=draw(st.none() | st.integers(0, 2**50)),
            )
        )
        start += length
    return ConversionPlan(
        model_sha256=draw(st.from_regex(r"[0-9a-f]{64}", fullmatch=True)),
        layers=start,
        context_tokens=draw(st.integers(1, 2**40)),
        selector=draw(SAFE_TEXT),
        items=tuple(items),
    )


def plan(*windows: int | None) -> ConversionPlan:
    """One layer per argument: None keeps it."""
    items = tuple(
        PlanItem(start=i, stop=i + 1, strategy="keep", reason="needed for recall")
        if window is None
        else PlanItem(
            start=i, stop=i + 1, strategy="streaming", params={"sinks": 4, "window": window}
        )
        for i, window in enumerate(windows)
    )
    return ConversionPlan(
        model_sha256="ab" * 32,
        layers=len(windows),
        context_tokens=8192,
        selector="milp",
        items=items,
    )


@settings(max_examples=60, deadline=None)
@given(plans())
def test_round_trip_is_exact(tmp_path_factory, original: ConversionPlan) -> None:
    path = tmp_path_factory.getbasetemp() / "plan.yaml"
    write_plan(original, path)
    read = read_plan(path)
    assert read == original
    assert read.model_dump_json() == original.model_dump_json()


def test_the_file_is_for_people(tmp_path: Path) -> None:
    text = write_plan(plan(None, 252), tmp_path / "plan.yaml").read_text()
    assert text.startswith("# A conversion plan")
    assert "reason: needed for recall" in text
    assert "predicted" not in text, "nothing was predicted here"
    edited = text.replace("window: 252", "window: 64  # narrower, by hand")
    (tmp_path / "plan.yaml").write_text(edited)
    assert read_plan(tmp_path / "plan.yaml").items[1].params["window"] == 64


@pytest.mark.parametrize(
    ("old", "new", "field", "message"),
    [
        ("stop: 2", "stop: 3", "", "covered twice|end at"),
        ("strategy: streaming", "stratgy: streaming", "items.1.stratgy", "unknown field"),
        ("layers: 3", "layers: many", "layers", "valid integer"),
        ("start: 1", "start: -1", "items.1.start", "greater than or equal to 0"),
        ("layers: 3", "layers: [3", "", "not valid YAML"),
    ],
)
def test_errors_name_file_line_and_field(tmp_path, old, new, field, message) -> None:
    path = write_plan(plan(None, 252, None), tmp_path / "plan.yaml")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    line = path.read_text()[: path.read_text().index(new)].count("\n") + 1
    with pytest.raises(InputError, match=message) as caught:
        read_plan(path)
    assert str(caught.value).startswith(f"{path}:")
    assert field in str(caught.value)
    if field:
        assert caught.value.where == f"{path}:{line}: {field}"


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_plan(tmp_path / "none.yaml")


def test_differences_are_by_layer_not_by_item() -> None:
    one = plan(None, None, 252, 252, None)
    merged = one.model_copy(
        update={
            "items": (
                PlanItem(start=0, stop=2, strategy="keep", reason="another reason"),
                one.items[2],
                one.items[3],
                one.items[4],
            )
        }
    )
    assert diff_plans(one, merged) == []
    assert diff_plans(one, plan(None, 252, 252, 64, None)) == [
        "layer 1: keep -> streaming(sinks=4, window=252)",
        "layer 3: streaming(sinks=4, window=252) -> streaming(sinks=4, window=64)",
    ]
    assert diff_plans(one, plan(None, None, None, None, None)) == [
        "layer 2-3: streaming(sinks=4, window=252) -> keep"
    ]
    other = one.model_copy(update={"model_sha256": "cd" * 32})
    assert diff_plans(one, other) == ["model: abababababab -> cdcdcdcdcdcd"]
    assert diff_plans(plan(None), plan(None, 64))[0] == "layers: 1 -> 2"
