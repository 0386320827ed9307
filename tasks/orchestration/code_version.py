"""The version of a step's code: a digest of all code that the step can execute.

It covers the import closure of the step's function and of each component that its inputs name.
Imports are read from compiled code, without executing it. Imports inside functions count, and
modules named by strings too, because the code that ships inside checkpoints is reached by name.
Docstrings, comments, assertions and imports under TYPE_CHECKING do not count. The digest depends on
the version of Python, because bytecode does.
"""

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
# modules that no result depends on, with the reason; their imports do not count either
WITHOUT_EFFECT = {
    "layerwright.tasks.orchestration": "decides when and where a step runs",
    "layerwright.tasks.store": "returns the bytes that were stored, or fails",
    "layerwright.tasks.tracking": "copies the metrics of a training to MLflow",
    "layerwright.tasks.errors": "says why a step has no result",
    "layerwright.tasks.progress": "draws progress bars",
}
_TYPE_CHECKING = re.compile(rb"^if TYPE_CHECKING:.*\n(?:[ \t].*\n|\n)*", re.MULTILINE)
_NAME = re.compile(r"[a-z_]+(\.[a-z0-9_]+)+")


class Module(NamedTuple):
    """The parts of a module that a cache key depends on."""

    digest: bytes  # of its code
    imports: set[str]  # the modules of this project that it can import
    rooms: set[str]  # the packages whose components it can build by name


def code_version(module: str, inputs: Iterable[Any] = ()) -> str:
    """The sha256 of the code that the functions of ``module`` can execute for these inputs."""
    digest = hashlib.sha256()
    for name in sorted(closure(module, frozenset(named_in(inputs)))):
        digest.update(name.encode() + b"\0" + read(name).digest)
    return digest.hexdigest()


@cache
def closure(module: str, names: frozenset[str] = frozenset()) -> frozenset[str]:
    """All modules that ``module`` can import, for inputs that name these components."""
    seen: set[str] = set()
    waiting, rooms = [module], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or not _counts(name):
            continue
        seen.add(name)
        code = read(name)
        waiting += [*code.imports, name.rpartition(".")[0]]  # an import also executes the package
        for room in code.rooms - rooms:
            rooms.add(room)
            waiting += [f"{room}.{named}" for named in names]  # a component's file has its name
    return frozenset(seen)


def named_in(value: Any) -> Iterator[str]:
    """The names of all components in a step's inputs, at any depth."""
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
    """The names of components in the options of a component, where specs are plain JSON."""
    if isinstance(value, dict):
        if isinstance(name := value.get("name"), str):
            yield name
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _named_in_options(inner)


@cache
def read(module: str) -> Module:
    """Read a module of this project; it is compiled but not executed."""
    path = source_file(module)
    assert path is not None, f"{module} has no source file"
    source = _TYPE_CHECKING.sub(b"", path.read_bytes())
    # not ast.parse: CPython 3.11 can crash if two threads build syntax trees
    code = compile(source, path.name, "exec", dont_inherit=True, optimize=2)
    digest = hashlib.sha256(_canonical(code).encode()).digest()
    blocks = list(_blocks(code))
    givers = [block for block in blocks if "room" in block.co_names]
    rooms = {name for block in givers for name in _named(block) if _is_package(name)}
    return Module(digest, {name for block in blocks for name in _imported(block)}, rooms)


def _canonical(value: object) -> str:
    """Code as text, without line numbers and file names."""
    if isinstance(value, CodeType):
        shape = (value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount)
        names = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
        head = (value.co_name, value.co_flags, shape, names)
        parts = (*head, value.co_code, value.co_exceptiontable)
        return f"code({parts!r}, {_canonical(value.co_consts)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_canonical, value))})"
    if isinstance(value, frozenset):  # its order differs between processes
        return f"{{{', '.join(sorted(map(_canonical, value)))}}}"
    return repr(value)


def _blocks(code: CodeType) -> Iterator[CodeType]:
    """The code and all functions and classes in it."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _blocks(inner)


def _imported(block: CodeType) -> Iterator[str]:
    """The modules that a block imports, or that it names in a string."""
    for kind, what in ModuleFinder().scan_opcodes(block):
        if kind == "absolute_import":
            names, module = what
            # `from ...hybrid import cache` imports a module, `from ...errors import X` does not
            yield from filter(_counts, (module, *(f"{module}.{name}" for name in names or ())))
    yield from (name for name in _named(block) if not _is_package(name))


def _named(block: CodeType) -> Iterator[str]:
    """The names of this project's modules among the constants of a block."""
    texts = (text for text in block.co_consts if isinstance(text, str) and _NAME.fullmatch(text))
    return filter(_counts, texts)


def _counts(module: str) -> bool:
    ours = module.startswith(PACKAGES) and source_file(module) is not None
    return ours and not any(f"{module}.".startswith(f"{out}.") for out in WITHOUT_EFFECT)


def _is_package(module: str) -> bool:
    path = source_file(module)
    return path is not None and path.name == "__init__.py"
