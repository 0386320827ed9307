"""What every contract is: a frozen JSON document, strict about its fields, with an identity."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

# strict: `rows: true` and `rows: "4"` are mistakes, not numbers
Positive = Annotated[int, Field(gt=0, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=1)]


class Contract(BaseModel):
    """Frozen, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


INCIDENTAL = frozenset({"uri", "data_root", "seconds"})  # where a thing lies, how long it took


def identity(value: Any) -> str:
    """sha256 over the canonical JSON of contracts, without their incidental fields.

    Two values with the same identity are interchangeable as inputs of a step.
    """

    def strip(node: Any) -> Any:
        if isinstance(node, dict):
            return {k: strip(v) for k, v in node.items() if k not in INCIDENTAL}
        if isinstance(node, list):
            return [strip(v) for v in node]
        return node

    def default(node: Any) -> Any:
        if isinstance(node, BaseModel):
            return strip(node.model_dump(mode="json"))
        raise TypeError(f"{type(node).__name__} has no identity")

    text = json.dumps(strip(value), default=default, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Spec(BaseModel):
    """A component by name, with its options beside the name: ``{name: streaming, window: 252}``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})
