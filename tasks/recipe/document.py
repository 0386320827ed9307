"""YAML documents whose errors name file, line and field."""

import copy
import math
from datetime import date
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from layerwright.tasks.errors import InputError

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[str | int, ...]
MAX_VALUES = 100_000  # YAML aliases can expand a few lines to gigabytes
MAX_DEPTH = 50
INTEGER_LIMIT = 2**63  # files, arrays and databases hold 64-bit integers


class Located:
    """A YAML document that knows the line of each field.

    Args:
        path: the file; messages name it.
        text: the content; by default it is read from ``path``.

    Raises:
        InputError: the file is missing, is not YAML, or repeats a key.
    """

    def __init__(self, path: Path | str, text: str | None = None) -> None:
        self.path = Path(path)
        try:
            text = self.path.read_text(encoding="utf-8") if text is None else text
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or error
            expected = "a YAML file in UTF-8"
            raise InputError(
                f"cannot be read: {why}", where=str(path), expected=expected
            ) from error
        try:
            self.root = YAML(typ="rt").load(text)
        except MarkedYAMLError as error:
            at = f"{path}:{error.problem_mark.line + 1 if error.problem_mark else 1}"
            raise InputError(f"is not valid YAML: {error.problem}", where=at) from error
        except Exception as error:  # ruamel raises bare ValueErrors for odd scalars
            raise InputError(f"is not valid YAML: {error}", where=str(path)) from error
        if not isinstance(self.root, CommentedMap):
            expected = "a mapping of fields at the top level"
            raise InputError("has no fields", where=f"{path}:1", expected=expected)
        self._set: dict[str, str] = {}

    def override(self, assignment: str) -> None:
        """Apply one ``--set a.b=c``. ``c`` is YAML; a number in the path is a list index.

        Raises:
            InputError: there is no ``=``, or a part of the path is a plain value without fields.
        """
        dotted, equals, value = assignment.partition("=")
        parts = dotted.split(".")
        if not equals or not all(parts):
            raise InputError(f"--set {assignment}: not an assignment", expected="--set a.b=c")
        try:
            parsed = YAML(typ="safe").load(value) if value else None
        except Exception as error:
            raise InputError(f"--set {assignment}: the value is not valid YAML") from error
        node: Any = self.root
        for part in parts[:-1]:
            node = self._child(node, part, assignment)
        if isinstance(node, CommentedSeq):
            node[self._index(node, parts[-1], assignment)] = parsed
        elif isinstance(node, dict):
            node[parts[-1]] = parsed
        else:
            raise InputError(f"--set {assignment}: {'.'.join(parts[:-1])} has no fields")
        self._set[dotted] = assignment

    @classmethod
    def _child(cls, node: Any, part: str, assignment: str) -> Any:
        key: str | int
        if isinstance(node, CommentedSeq):
            key = cls._index(node, part, assignment)
            inner = node[key]
        elif isinstance(node, dict):
            key, inner = part, node.get(part)
        else:
            raise InputError(f"--set {assignment}: the field before {part!r} is a plain value")
        # copied, because a YAML alias may share this node with other fields
        node[key] = CommentedMap() if inner is None else copy.deepcopy(inner)
        return node[key]

    @staticmethod
    def _index(node: CommentedSeq, part: str, assignment: str) -> int:
        if not (part.isascii() and part.isdigit()) or int(part) >= len(node):
            expected = f"an index below {len(node)}"
            raise InputError(f"--set {assignment}: no item {part}", expected=expected)
        return int(part)

    def place(self, location: Location) -> str:
        """``file:line: field`` for a path into the document, at the nearest line that exists.

        For a value from the command line it is ``--set assignment: field``.
        """
        node, line = self.root, 1
        for part in location:
            try:
                if isinstance(node, CommentedMap) and part in node:
                    line = node.lc.key(part)[0] + 1
                elif isinstance(node, CommentedSeq):
                    line = node.lc.item(part)[0] + 1
                node = node[part]
            except (KeyError, IndexError, TypeError, AttributeError):
                node = None
        dotted = ".".join(str(part) for part in location)
        for name, assignment in self._set.items():
            if dotted == name or dotted.startswith(name + ".") or name.startswith(dotted + "."):
                return f"--set {assignment}: {dotted}"
        return f"{self.path}:{line}: {dotted}" if dotted else f"{self.path}:{line}"

    def validate(self, model: type[Model], context: dict[str, str] | None = None) -> Model:
        """Validate the document as ``model``, in a validation context of pydantic.

        Raises:
            InputError: names the first wrong field's line.
        """
        try:
            values = _PlainValues(self).convert(self.root, ())
            return model.model_validate(values, context=context)
        except ValidationError as error:
            first = _most_helpful(error.errors())
            location, kind = _strip_tags(first["loc"], self.root), first["type"]
            message, at = "impossible value", location
            hints: dict[str, Any] = {}
            if kind == "extra_forbidden":
                message, known = f"unknown field {location[-1]!r}", _fields_at(model, location[:-1])
                hints["expected"] = f"one of {', '.join(known)}" if known else None
            elif kind == "missing":
                message = "a required field is missing"
            elif kind == "component":
                message = first["msg"]
                hints = {key: first["ctx"][key] for key in ("expected", "remedy")}
            elif "at" in first.get("ctx", {}):  # from a check of several fields
                at, hints["expected"] = first["ctx"]["at"], first["msg"]
            else:
                told = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
                got = first.get("input")
                shown = isinstance(got, str | int | float | bool)
                hints["expected"] = f"{told}, not {repr(got)[:80]}" if shown else told
            raise InputError(message, where=self.place(at), **hints) from error


class _PlainValues:
    """Converts ruamel's types to plain Python values, and refuses values that JSON cannot hold."""

    def __init__(self, document: Located) -> None:
        self.document, self.values = document, 0

    def convert(self, node: Any, at: Location) -> Any:
        """Convert a node of the document and everything inside it."""
        self.values += 1
        if self.values > MAX_VALUES or len(at) > MAX_DEPTH:
            raise InputError(
                "is too large once its aliases are expanded",
                where=str(self.document.path),
                expected=f"at most {MAX_VALUES:,} values and {MAX_DEPTH} levels",
            )
        if isinstance(node, dict):
            inner = {self._text(str(k), at): self.convert(v, (*at, k)) for k, v in node.items()}
            return inner if len(inner) == len(node) else self._refuse(at, "each key once")
        if isinstance(node, list | tuple):
            return [self.convert(inner, (*at, index)) for index, inner in enumerate(node)]
        if isinstance(node, str):
            return self._text(str(node), at)
        if isinstance(node, bool | ScalarBoolean) or node is None:
            return None if node is None else bool(node)
        if isinstance(node, int):
            small = abs(node) < INTEGER_LIMIT
            return int(node) if small else self._refuse(at, "a number below 2^63")
        if isinstance(node, float):
            return float(node) if math.isfinite(node) else self._refuse(at, "a finite number")
        if isinstance(node, date):  # a date without quotes
            return node.isoformat()
        return self._refuse(at, "text (in quotes), a number, true or false, a list or a mapping")

    def _text(self, text: str, at: Location) -> str:
        if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text):
            self._refuse(at, "text that UTF-8 can encode, without NUL characters")
        return text

    def _refuse(self, at: Location, expected: str) -> NoReturn:
        raise InputError("impossible value", where=self.document.place(at), expected=expected)


def _most_helpful(errors: list[Any]) -> Any:
    """The first error; but for a missing field an unknown one of its block, probably misspelt."""
    first = errors[0]
    same_block = (e for e in errors if e["loc"][:-1] == first["loc"][:-1])
    unknown = (e for e in same_block if e["type"] == "extra_forbidden")
    return next(unknown, first) if first["type"] == "missing" else first


def _strip_tags(location: tuple[Any, ...], root: Any) -> Location:
    """Drop the parts that pydantic adds to a path (union tags) and keep the document's own."""
    kept: list[str | int] = []
    node = root
    for position, part in enumerate(location, 1):
        if isinstance(node, dict) and (part in node or position == len(location)):
            kept.append(part)
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int):
            kept.append(part)
            node = node[part] if part < len(node) else None
    return tuple(kept)


def _fields_at(model: type[BaseModel], location: Location) -> list[str]:
    """The fields that a model allows at a path, for the message about an unknown field."""
    current: Any = model
    for part in location:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            continue  # an index or a free key: `current` is already the model inside
        current = _inner_model(field.annotation)
    return list(getattr(current, "model_fields", {}))


def _inner_model(annotation: Any) -> Any:
    """The first pydantic model inside a type annotation; None if it has none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = map(_inner_model, getattr(annotation, "__args__", ()))
    return next((model for model in inner if model is not None), None)
