"""The version of a step's code: a digest over the code that the step's own work reaches.

A cached result is reused only while this digest stays the same. It covers the import closure of the
room's function, and of each component that the step's inputs name: a strategy or a metric that a
run does not use does not count. Imports are read from compiled code, without running any: an import
inside a function counts, and so does a module that a string names (the code that ships inside
checkpoints is reached by name). Docstrings, comments, assertions and imports for type checkers
alone do not count. Bytecode differs between versions of Python, and so does the digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from modulefinder import ModuleFinder
from types import CodeType
from typing import Any, NamedTuple

from pydantic import BaseModel

from layerwright import source_file
from layerwright.tasks.contracts.base import Spec

PACKAGES = ("layerwright.tasks.", "layerwright.kernels.")
# what every step passes through and no result depends on, with its imports
WITHOUT_EFFECT = {
    "layerwright.tasks.orchestration": "decides when and where a step runs",
    "layerwright.tasks.store": "gives back the bytes that it was given, or fails",
    "layerwright.tasks.tracking": "copies the metrics of a training to MLflow",
    "layerwright.tasks.errors": "says why a step has no result",
    "layerwright.tasks.progress": "draws bars",
}
_TYPE_CHECKING = re.compile(rb"^if TYPE_CHECKING:.*\n(?:[ \t].*\n|\n)*", re.MULTILINE)
_NAME = re.compile(r"[a-z_]+(\.[a-z0-9_]+)+")


class Module(NamedTuple):
    """A module as the key sees it.

    Attributes:
        digest: of its code.
        imports: the modules of this project that it can import.
        rooms: the packages whose components it can build by name.
    """

    digest: bytes
    imports: frozenset[str]
    rooms: frozenset[str]


def code_version(module: str, inputs: Iterable[Any] = ()) -> str:
    """sha256 over the code that the functions of ``module`` reach when they work on ``inputs``."""
    return digest_of(closure(module, frozenset(named_in(inputs))))


def digest_of(modules: Iterable[str]) -> str:
    """sha256 over the names and the code of modules."""
    digest = hashlib.sha256()
    for name in sorted(modules):
        digest.update(name.encode() + b"\0" + read(name).digest)
    return digest.hexdigest()


@cache
def closure(module: str, names: frozenset[str] = frozenset()) -> frozenset[str]:
    """Every module of this project that ``module`` can reach, itself included.

    Args:
        names: of the components that its functions are asked for.
    """
    seen: set[str] = set()
    waiting, rooms = [module], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or not _counts(name):
            continue
        seen.add(name)
        found = read(name)
        waiting += [*found.imports, name.rpartition(".")[0]]  # importing runs the package as well
        for room in found.rooms - rooms:
            rooms.add(room)
            waiting += [f"{room}.{named}" for named in names]  # a component has a file of its name
    return frozenset(seen)


def named_in(value: Any) -> Iterator[str]:
    """The names of all components that inputs of a step name, at any depth."""
    if isinstance(value, BaseModel):
        spec = value if isinstance(value, Spec) else getattr(value, "spec", None)
        if isinstance(spec, Spec):  # a component, or an item of a plan
            yield from (spec.name, *_named_in_options(spec.options))
        else:
            yield from named_in([inner for _, inner in value])
    elif isinstance(value, dict):
        yield from named_in(value.values())
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for inner in value:
            yield from named_in(inner)


def _named_in_options(value: Any) -> Iterator[str]:
    """Specs among the options of a component, which holds them as plain JSON."""
    if isinstance(value, dict):
        if isinstance(name := value.get("name"), str):
            yield name
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _named_in_options(inner)


@cache
def read(module: str) -> Module:
    """Compile a module of this project, without running it."""
    path = source_file(module)
    assert path is not None, f"{module} has no source file"
    source = _TYPE_CHECKING.sub(b"", path.read_bytes())
    # compiled, not parsed: CPython 3.11 can crash where two threads make syntax trees
    code = compile(source, path.name, "exec", dont_inherit=True, optimize=2)
    digest = hashlib.sha256(_canonical(code).encode()).digest()
    return Module(digest, frozenset(_imported(code)), frozenset(_rooms(code)))


def _canonical(value: object) -> str:
    """Code and its constants as text, without line numbers and file names."""
    if isinstance(value, CodeType):
        shape = (value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount)
        names = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
        parts = (
            value.co_name,
            value.co_flags,
            shape,
            names,
            value.co_code,
            value.co_exceptiontable,
        )
        return f"code({parts!r}, {_canonical(value.co_consts)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_canonical, value))})"
    if isinstance(value, frozenset):  # its order follows from the hashes of one process
        return f"{{{', '.join(sorted(map(_canonical, value)))}}}"
    return repr(value)


def _imported(code: CodeType) -> Iterator[str]:
    """Modules that code imports, or names as the code that ships inside checkpoints."""
    for kind, what in ModuleFinder().scan_opcodes(code):
        if kind == "absolute_import":
            names, module = what
            # `from ...hybrid import cache` names a module, `from ...errors import X` none
            yield from filter(_counts, (module, *(f"{module}.{name}" for name in names or ())))
    yield from (name for name in _named(code.co_consts) if not _is_package(name))
    for inner in _functions(code):
        yield from _imported(inner)


def _rooms(code: CodeType) -> Iterator[str]:
    """The packages that kinds of components give as their room."""
    if "room" in code.co_names:
        yield from filter(_is_package, _named(code.co_consts))
    for inner in _functions(code):
        yield from _rooms(inner)


def _named(constants: tuple[object, ...]) -> Iterator[str]:
    """The modules of this project among constants."""
    texts = (text for text in constants if isinstance(text, str) and _NAME.fullmatch(text))
    return filter(_counts, texts)


def _functions(code: CodeType) -> Iterator[CodeType]:
    return (inner for inner in code.co_consts if isinstance(inner, CodeType))


def _counts(module: str) -> bool:
    ours = module.startswith(PACKAGES) and source_file(module) is not None
    return ours and not any(f"{module}.".startswith(f"{out}.") for out in WITHOUT_EFFECT)


def _is_package(module: str) -> bool:
    path = source_file(module)
    return path is not None and path.name == "__init__.py"
