"""Errors in YAML know their file, line and field."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from layerwright.tasks.errors import InputError
from layerwright.tasks.recipe.document import Located


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Part(Strict):
    size: int = Field(gt=0)
    label: str = "x"


class Whole(Strict):
    first: Part
    parts: list[Part] = []
    named: dict[str, Part] = {}
    choice: Part | None = None


TEXT = """\
# a comment
first:
  size: 1

parts:
  - size: 2
  - {size: 3, label: b}
named:
  one: {size: 4}
  two:
    size: 5
"""


def located(text: str = TEXT) -> Located:
    return Located("some/file.yaml", text)


def whole(text: str, *sets: str) -> Whole:
    document = located(text)
    for assignment in sets:
        document.override(assignment)
    return document.validate(Whole)


def error_of(text: str, *sets: str) -> InputError:
    with pytest.raises(InputError) as error:
        whole(text, *sets)
    return error.value


def test_a_right_document() -> None:
    found = whole(TEXT)
    assert [part.size for part in found.parts] == [2, 3]
    assert type(found.parts[1].label) is str
    assert found.named["two"].size == 5


@pytest.mark.parametrize(
    ("wrong", "right", "where", "message"),
    [
        ("  size: 1", "  sise: 1", "3: first.sise", "unknown field 'sise'"),
        ("  - size: 2", "  - sise: 2", "6: parts.0.sise", "unknown field"),
        ("label: b", "lable: b", "7: parts.1.lable", "unknown field"),
        ("    size: 5", "    siz: 5", "11: named.two.siz", "unknown field"),
        ("first:", "furst:", "2: furst", "unknown field"),
        ("  size: 1", "  size: big", "3: first.size", "impossible value"),
        ("  size: 1", "  size: 0", "3: first.size", "impossible value"),
        ("  size: 1", "  size:", "3: first.size", "impossible value"),
        ("{size: 4}", "{label: a}", "9: named.one.size", "a required field is missing"),
        ("{size: 4}", "4", "9: named.one", "impossible value"),
        ("named:", "choice: {size: x}\nnamed:", "8: choice.size", "impossible value"),
    ],
)
def test_place_and_message(wrong: str, right: str, where: str, message: str) -> None:
    error = error_of(TEXT.replace(wrong, right, 1))
    assert error.where == f"some/file.yaml:{where}"
    assert message in error.message
    assert str(error).startswith(f"some/file.yaml:{where}: ")


def test_an_unknown_field_lists_the_known_ones_at_its_place() -> None:
    assert error_of(TEXT.replace("label", "lable")).expected == "one of size, label"
    assert error_of(TEXT + "more: 1\n").expected == "one of first, parts, named, choice"


def test_a_wrong_value_says_what_was_expected_and_found() -> None:
    error = error_of(TEXT.replace("size: 3", "size: 3.5"))
    assert "integer" in error.expected
    assert error.expected.endswith("not 3.5")
    assert "greater than 0, not -1" in error_of(TEXT.replace("size: 3", "size: -1")).expected


def test_a_missing_field_is_placed_at_what_lacks_it() -> None:
    error = error_of("named: {}\n")
    assert (error.where, error.message) == (
        "some/file.yaml:1: first",
        "a required field is missing",
    )


def test_a_check_over_several_fields_may_name_one() -> None:
    class Checked(Whole):
        @model_validator(mode="after")
        def _check(self) -> "Checked":
            raise PydanticCustomError("kind", "{said}", {"at": ("parts", 1), "said": "less"})

    with pytest.raises(InputError) as error:
        located().validate(Checked)
    assert error.value.where == "some/file.yaml:7: parts.1"
    assert error.value.expected == "less"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "not valid YAML"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", 3, 'duplicate key "a"'),
        ("a:\n  b: 2\n  b: 3\n", 3, 'duplicate key "b"'),
        ("a: *nobody\n", 1, "undefined alias"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("", 1, "has no fields"),
        ("- a\n- b\n", 1, "has no fields"),
        ("just text\n", 1, "has no fields"),
    ],
)
def test_what_is_no_mapping_in_yaml(text: str, line: int, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        located(text)
    assert error.value.where == f"some/file.yaml:{line}"


def test_a_scalar_that_yaml_cannot_build() -> None:
    with pytest.raises(InputError, match="not valid YAML"):
        located("a: 2024-99-99\n")


def test_no_python_object_is_ever_built(tmp_path: Path) -> None:
    text = f"first: {{size: !!python/object/apply:os.mkdir ['{tmp_path}/made']}}\n"
    with pytest.raises(InputError):
        located(text).validate(Whole)
    assert not (tmp_path / "made").exists()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00a")
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "binary.yaml"):
        with pytest.raises(InputError, match="cannot be read") as error:
            Located(path)
        assert error.value.where == str(path)


def test_set_changes_adds_and_reaches_into_lists() -> None:
    sets = ("first.size=10", "parts.1.label=c=d", "choice.size=7", "named={}")
    changed = whole(TEXT, *sets)
    assert (changed.first.size, changed.parts[1].label, changed.choice.size) == (10, "c=d", 7)
    assert changed.named == {}
    assert changed.parts[0].size == 2


def test_set_reads_its_value_as_yaml() -> None:
    changed = whole(TEXT, "parts=[{size: 8}, {size: 9}]", "choice=")
    assert [part.size for part in changed.parts] == [8, 9]
    assert changed.choice is None


def test_set_changes_one_place_of_an_alias() -> None:
    text = "first: &it {size: 1}\nparts: [*it, *it]\nnamed: {one: *it}\n"
    changed = whole(text, "parts.1.size=2")
    sizes = [changed.first.size, *(part.size for part in changed.parts), changed.named["one"].size]
    assert sizes == [1, 1, 2, 1]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("first.size", "not an assignment"),
        ("=1", "not an assignment"),
        ("first..size=1", "not an assignment"),
        ("parts.2.size=1", "no item 2"),
        ("parts.x=1", "no item x"),
        ("first.size.x=1", "has no fields"),
        ("first.size.x.y=1", "before 'x' is a plain value"),
        ("first=[1", "not valid YAML"),
    ],
)
def test_a_wrong_set(assignment: str, message: str) -> None:
    assert message in str(error_of(TEXT, assignment))
    assert f"--set {assignment}" in str(error_of(TEXT, assignment))


def test_an_error_in_a_set_names_the_set_not_a_line() -> None:
    assert error_of(TEXT, "first.size=0").where == "--set first.size=0: first.size"
    assert error_of(TEXT, "parts=[{size: 0}]").where == "--set parts=[{size: 0}]: parts.0.size"
    assert error_of(TEXT, "frist.size=1").where == "--set frist.size=1: frist"


def test_lines_hold_after_a_set_beside() -> None:
    text = TEXT.replace("label: b", "label: [b]")
    assert error_of(text, "parts.1.size=9").where == "some/file.yaml:7: parts.1.label"
    text = TEXT.replace("    size: 5", "    size: x")
    assert error_of(text, "named.two.label=a").where == "some/file.yaml:11: named.two.size"
