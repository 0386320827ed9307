"""Components: find strategies, profilers, selectors, objectives and metrics by name.

A component is a frozen pydantic model whose fields are its options. Defining the class registers
it: a new component is one file in its room, without any other edit.

    class Streaming(Strategy):
        name = "streaming"
        sinks: int = 4

A recipe names it as ``{name: streaming, sinks: 2}``. A field of the kind, or of the type that
`component` makes, validates that into ``Streaming(sinks=2)``, and serialises it as it was given.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError, ValidationInfo
from pydantic import ValidatorFunctionWrapHandler as Handler
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.errors import InputError

NAMES_ONLY = {"components": "names only"}  # a validation context: imports no room


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
        """The component as a recipe would name it, with the options that were given."""
        return Spec(name=self.name, **self.model_dump(mode="json", exclude_unset=True))

    def with_options(self, **changes: Any) -> Self:
        """The same component with some options changed; raise InputError as `build`."""
        return _made(type(self), self.spec.options | changes)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        is_kind = hasattr(cls, "kind") and not hasattr(cls, "name")
        return _schema(lambda: cls, handler) if is_kind else handler(source)

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
        importlib.import_module(module.name)
    components = {n: c for (k, n), c in Component._known.items() if k == kind.kind}
    return dict(sorted(components.items()))  # type: ignore[arg-type]


def build(kind: type[Kind], spec: Spec) -> Kind:
    """Make the component that a spec names, with the spec's options.

    Raises:
        InputError: the name or an option is unknown, or an option has a wrong type or value.
            Its ``where`` is the field inside the spec.
    """
    known = discover(kind)
    if spec.name not in known:
        raise InputError(
            f"unknown {kind.kind} {spec.name!r}",
            where="name",
            expected=f"one of {', '.join(known)}",
            remedy="`layerwright methods` lists all components",
        )
    return _made(known[spec.name], spec.options)


def _made(kind: type[Kind], options: dict[str, Any]) -> Kind:
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{kind.kind} {kind.name!r}: {first['msg']}",
            where=".".join(str(part) for part in first["loc"]) or "name",
            expected=f"options of {kind.name}: {', '.join(kind.model_fields) or 'no options'}",
        ) from error


def component(kind: str) -> type:
    """The type of a field that holds a component, as the kind's class itself would be.

    Args:
        kind: ``module:class`` below ``layerwright.tasks``, imported when a field is validated.
    """
    module, _, name = kind.partition(":")

    def kind_of() -> type[Component]:
        return getattr(importlib.import_module(f"layerwright.tasks.{module}"), name)

    class Late:
        @classmethod
        def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
            return _schema(kind_of, handler)

    return Late


def _schema(kind_of: Callable[[], type[Component]], handler: GetCoreSchemaHandler) -> CoreSchema:
    """Validates ``{name: ..., option: ...}`` into a component; serialises it the same way."""

    def validated(value: Any, as_spec: Handler, info: ValidationInfo) -> Component | Spec:
        if isinstance(value, Component):
            if isinstance(value, kind := kind_of()):
                return value
            raise ValueError(f"a {kind.kind}, not the {value.kind} {value.name!r}")
        spec = as_spec(value)
        if info.context == NAMES_ONLY:
            return spec
        try:
            return build(kind_of(), spec)
        except InputError as error:
            told = {"message": error.message, "expected": error.expected, "remedy": error.remedy}
            wrong = InitErrorDetails(
                type=PydanticCustomError("component", "{message}", told),
                loc=tuple(int(p) if p.isdigit() else p for p in (error.where or "name").split(".")),
                input=value,
            )
            raise ValidationError.from_exception_data(spec.name, [wrong]) from None

    def written(value: Component | Spec) -> dict[str, Any]:
        return (value.spec if isinstance(value, Component) else value).model_dump()

    written_as = core_schema.plain_serializer_function_ser_schema(written)
    spec = handler.generate_schema(Spec)
    return core_schema.with_info_wrap_validator_function(validated, spec, serialization=written_as)
