"""Which steps a release computes anew: those whose code version differs from an older checkout.

    python -m layerwright.infra.rekeyed OLD_CHECKOUT
    python -m layerwright.infra.rekeyed --since v0.1.0

A step is computed anew for every recipe, or only where a recipe uses a component whose own code
changed. For release notes.
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

Versions = dict[str, dict[str, str]]  # by function; "" without components, else with one


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
    import_module(module)  # defines the kinds of components that it uses
    rooms = {room for reached in closure(module) for room in read(reached).rooms}
    kinds = [kind for kind in Component.__subclasses__() if kind.room in rooms]
    return sorted({name for kind in kinds for name in discover(kind)})


def rekeyed(old: Versions, new: Versions) -> Iterator[str]:
    """A line for each function whose results an older checkout's cache does not have."""
    for name, now in new.items():
        before = old.get(name, {})
        if before.get("") != now[""]:
            yield f"{name}: every recipe"
        elif changed := [c for c in now if c in before and before[c] != now[c]]:
            yield f"{name}: recipes with {', '.join(changed)}"


def versions_in(checkout: Path) -> Versions:
    """`versions` of a checkout; nothing where it computes code versions in another way."""
    given = [sys.executable, "-P", __file__, "--print"]  # this file, on the checkout's package
    env = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(given, cwd=checkout, env=env, capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {}


@contextmanager
def _checkout(revision: str) -> Iterator[Path]:
    """A worktree of a commit, for as long as it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        path, git = Path(folder) / "old", ["git", "-C", str(ROOT.parent), "worktree"]
        subprocess.run([*git, "add", "--detach", str(path), revision], check=True, stdout=2)
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", str(path)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("old", nargs="?", type=Path, help="a checkout of the older release")
    asked.add_argument("--since", metavar="REV", help="a tag or commit of this repository")
    asked.add_argument("--print", action="store_true", help="this checkout's versions as JSON")
    given = parser.parse_args()
    if given.print:
        print(json.dumps(versions()))
        return
    if given.since:
        with _checkout(given.since) as old:
            before = versions_in(old)
    else:
        before = versions_in(given.old.resolve())
    for line in list(rekeyed(before, versions())) or ["no step"]:
        print(line)


if __name__ == "__main__":
    main()
