"""List the steps that a release re-keys, by comparing code versions with an older checkout.

    python -m layerwright.infra.rekeyed OLD_CHECKOUT
    python -m layerwright.infra.rekeyed --since v0.1.0

Release notes use it. A step is re-keyed for every recipe, or only for recipes that use a component
whose code changed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from layerwright import ROOT
from layerwright.tasks.components import Component, discover
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.orchestration.code_version import closure, code_version, read
from layerwright.tasks.orchestration.node import nodes

Versions = dict[str, dict[str, str]]  # by function, then by component ("" for none)


def versions() -> Versions:
    """The code version of each cached function: alone, and with each component that it can use."""
    return {
        name: {
            component: code_version(node.module, [Spec(name=component)] if component else [])
            for component in ("", *_components(node.module))
        }
        for name, node in nodes().items()
        if node.cached
    }


def _components(module: str) -> list[str]:
    """The names of all components that a function of ``module`` can use."""
    import_module(module)  # so that the kinds of its components are defined
    rooms = {room for reached in closure(module) for room in read(reached).rooms}
    kinds = [kind for kind in Component.__subclasses__() if kind.room in rooms]
    return sorted({name for kind in kinds for name in discover(kind)})


def rekeyed(old: Versions, new: Versions) -> Iterator[str]:
    """A line for each function whose key differs from an older checkout's."""
    for name, now in new.items():
        before = old.get(name, {})
        if before.get("") != now[""]:
            yield f"{name}: every recipe"
        elif changed := [c for c in now if c in before and before[c] != now[c]]:
            yield f"{name}: recipes with {', '.join(changed)}"


def versions_in(checkout: Path) -> Versions:
    """The `versions` of a checkout; empty if it computes code versions differently."""
    command = [sys.executable, "-P", __file__, "--print"]  # this file with the checkout's package
    env = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {}


@contextmanager
def _checkout(revision: str) -> Iterator[Path]:
    """A temporary worktree of a commit."""
    with tempfile.TemporaryDirectory() as folder:
        path, git = Path(folder) / "old", ["git", "-C", str(ROOT.parent), "worktree"]
        subprocess.run([*git, "add", "--detach", str(path), revision], check=True, stdout=2)
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", str(path)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    modes = parser.add_mutually_exclusive_group(required=True)
    modes.add_argument("old", nargs="?", type=Path, help="a checkout of the older release")
    modes.add_argument("--since", metavar="REV", help="a tag or commit of this repository")
    modes.add_argument("--print", action="store_true", help="print this checkout's versions")
    arguments = parser.parse_args()
    if arguments.print:
        print(json.dumps(versions()))
        return
    if arguments.since:
        with _checkout(arguments.since) as old:
            before = versions_in(old)
    else:
        before = versions_in(arguments.old.resolve())
    for line in list(rekeyed(before, versions())) or ["no step"]:
        print(line)


if __name__ == "__main__":
    main()
