"""Components: find strategies, profilers, selectors, objectives and metrics by name.

A component is a frozen pydantic model whose fields are its options. Defining the class registers
it: a new component is one file in its room, without any other edit.

    class Streaming(Strategy):
        name: ClassVar[str] = "streaming"
        sinks: int = 4

    build(Strategy, Spec(name="streaming", sinks=2), where="choose.strategies.0")
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.errors import InputError


class Component(BaseModel):
    """The base class of all components.

    A *kind* of component (Strategy, Metric...) sets ``kind`` and ``room``, a component ``name``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str]
    room: ClassVar[str]
    name: ClassVar[str]
    _known: ClassVar[dict[tuple[str, str], type[Component]]] = {}

    @property
    def spec(self) -> Spec:
        """The component as a recipe names it, with the options that differ from their defaults."""
        return Spec(name=self.name, **self.model_dump(mode="json", exclude_defaults=True))

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            return
        taken = Component._known.setdefault((cls.kind, cls.name), cls)
        if taken.__module__ != cls.__module__:
            raise TypeError(f"{taken.__module__} already defines {cls.kind} {cls.name!r}")
        if cls.__module__.startswith(f"{cls.room}.") and cls.__module__ != f"{cls.room}.{cls.name}":
            # cache keys rely on this rule to find a component's code
            raise TypeError(f"{cls.__module__} defines {cls.name!r}: name the file {cls.name}.py")


Kind = TypeVar("Kind", bound=Component)


def discover(kind: type[Kind]) -> dict[str, type[Kind]]:
    """Import all modules of the kind's room and return its components, sorted by name."""
    package = importlib.import_module(kind.room)
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if not module.name.endswith(".task"):  # it imports the orchestrator
            importlib.import_module(module.name)
    components = {n: c for (k, n), c in Component._known.items() if k == kind.kind}
    return dict(sorted(components.items()))  # type: ignore[arg-type]


def build(kind: type[Kind], spec: Spec, *, where: str | None = None) -> Kind:
    """Make the component that a recipe names, with the recipe's options.

    Args:
        where: the component's path in the recipe, for messages.

    Raises:
        InputError: the name or an option is unknown, or an option has a wrong type or value.
    """
    known = discover(kind)
    if spec.name not in known:
        raise InputError(
            f"unknown {kind.kind} {spec.name!r}",
            where=where and f"{where}.name",
            expected=f"one of {', '.join(known)}",
            remedy="`layerwright methods` lists all components",
        )
    try:
        return known[spec.name].model_validate(spec.options)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        allowed = ", ".join(known[spec.name].model_fields) or "no options"
        raise InputError(
            f"{kind.kind} {spec.name!r}: {first['msg']}",
            where=f"{where}.{field}" if where else field,
            expected=f"options of {spec.name}: {allowed}",
        ) from error
