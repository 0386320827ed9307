"""The version of a step's code: a digest over the source files that the step can reach.

A cached result is reused only while none of these files changed. The closure is read from import
statements, without importing: late imports inside functions count, and so does a module that a
string names, with its whole room if it is one: components are discovered, and code is shipped, so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from modulefinder import ModuleFinder
from pathlib import Path
from types import CodeType

from layerwright import ROOT, source_file

PACKAGES = ("layerwright.tasks", "layerwright.kernels")
_NAME = re.compile(r"[a-z_.]+")


@cache
def code_version(module: str) -> str:
    """sha256 over the names and sources of ``module``'s import closure in this project."""
    digest = hashlib.sha256()
    for name in sorted(closure(module)):
        digest.update(name.encode() + b"\0" + _source(name).read_bytes() + b"\0")
    return digest.hexdigest()


def closure(module: str) -> frozenset[str]:
    """Every module of this project that ``module`` can import, itself included."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        waiting.extend(_imports(name))
        package = name.rpartition(".")[0]
        if _ours(package):
            waiting.append(package)  # importing a module runs its package
    return frozenset(seen)


@cache
def _imports(module: str) -> tuple[str, ...]:
    # compiled, not parsed: another thread may parse, and CPython 3.11's parser is not made for two
    source = _source(module)
    return tuple(_imported(compile(source.read_bytes(), str(source), "exec", dont_inherit=True)))


def _imported(code: CodeType) -> Iterator[str]:
    for kind, what in ModuleFinder().scan_opcodes(code):
        if kind == "absolute_import":
            names, module = what
            if _ours(module):
                yield module
                # `from ...hybrid import cache` names a module, `from ...errors import X` none
                inner = (f"{module}.{name}" for name in names or ())
                yield from (name for name in inner if source_file(name))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _imported(constant)
        elif _names_a_module(constant):
            # what is reached by name: the room of a kind of component, the code to be shipped
            yield constant
            yield from (
                f"{constant}.{p.stem}"
                for p in ROOT.joinpath(*constant.split(".")[1:]).glob("[!_]*.py")
            )


def _names_a_module(value: object) -> bool:
    return isinstance(value, str) and "." in value and bool(_NAME.fullmatch(value)) and _ours(value)


def _ours(module: str) -> bool:
    return module.startswith(PACKAGES) and source_file(module) is not None


def _source(module: str) -> Path:
    path = source_file(module)
    assert path is not None, f"{module} has no source file"
    return path
