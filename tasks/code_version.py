"""The version of a step's code: a digest over the source files that the step can reach.

A cached result is reused only while none of these files changed. The closure is read from import
statements, without importing: late imports inside functions count, and so does a module that a
string names, with its whole room if it is one: components are discovered, and code is shipped, so.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("tasks", "kernels")
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
        if "." in name:
            waiting.append(name.rpartition(".")[0])  # importing a module runs its package
    return frozenset(seen)


@cache
def _imports(module: str) -> tuple[str, ...]:
    return tuple(_imported(ast.parse(_source(module).read_text(encoding="utf-8"))))


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if _ours(a.name))
        elif isinstance(node, ast.ImportFrom) and node.module and _ours(node.module):
            yield node.module
            # `from tasks.hybrid import cache` names a module, `from tasks.errors import X` a class
            inner = (f"{node.module}.{a.name}" for a in node.names)
            yield from (name for name in inner if _find(name))
        elif isinstance(node, ast.Constant) and _names_a_module(node.value):
            # what is reached by name: the room of a kind of component, the code to be shipped
            yield node.value
            room = ROOT / node.value.replace(".", "/")
            yield from (f"{node.value}.{p.stem}" for p in room.glob("[!_]*.py"))


def _names_a_module(value: object) -> bool:
    return isinstance(value, str) and "." in value and bool(_NAME.fullmatch(value)) and _ours(value)


def _ours(module: str) -> bool:
    return module.split(".")[0] in PACKAGES and _find(module) is not None


def _find(module: str) -> Path | None:
    base = ROOT / module.replace(".", "/")
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _source(module: str) -> Path:
    path = _find(module)
    assert path is not None, f"{module} has no source file"
    return path
