"""The base class of all contracts, their number types, and `identity`, the digest of a contract."""

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

# strict: without it, pydantic reads `rows: true` and `rows: "4"` as numbers
Positive = Annotated[int, Field(gt=0, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=1)]


class Contract(BaseModel):
    """A frozen document. An unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# fields that do not change a step's result: locations and durations
INCIDENTAL = frozenset({"uri", "data_root", "seconds"})


def identity(value: Any) -> str:
    """The sha256 of the canonical JSON of contracts, without their ``INCIDENTAL`` fields.

    A step gives the same result for two inputs with the same identity.
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
    """A component's name and its options, in one mapping: ``{name: streaming, window: 252}``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})
