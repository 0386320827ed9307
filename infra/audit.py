"""What is installed against what was pinned, and against the known vulnerabilities.

    python -m layerwright.infra.audit [--osv URL] [--advisories]

Exit status 1 where a package is installed that constraints.txt does not pin at this version, where
requirements of packages contradict each other, or where a version has a vulnerability that WAIVED
does not explain. An index without advisories leaves the last open, which is said; with
``--advisories`` that is a failure too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Annotated

import typer
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
OURS = {"layerwright", "pip", "setuptools", "wheel"}  # the last three come with a new environment
WAIVED: dict[str, str] = {}  # an advisory's id: why it does not concern us, and until when


@dataclass(frozen=True)
class Vulnerability:
    """A known one, of the version that is pinned."""

    package: str
    version: str
    id: str
    fixed_in: tuple[str, ...]


def pinned(constraints: Path) -> dict[str, str]:
    """Versions by package."""
    lines = [line.partition("#")[0].strip() for line in constraints.read_text().splitlines()]
    pairs = [line.partition(";")[0].partition("==") for line in lines if line]
    return {canonicalize_name(name.strip()): version.strip() for name, _, version in pairs}


def unpinned(pins: dict[str, str], installed: dict[str, str]) -> list[str]:
    """What is here that nobody looked at, or at another version."""
    found = []
    for name, version in sorted(installed.items()):
        if name not in OURS and pins.get(name) != version:
            found.append(f"{name} {version} is installed, pinned is {pins.get(name, 'nothing')}")
    return found


def installed() -> dict[str, str]:
    here = distributions()
    # a local part names the build ("+cpu"), not the release
    return {canonicalize_name(d.metadata["Name"]): d.version.partition("+")[0] for d in here}


def vulnerabilities(report: str) -> tuple[list[Vulnerability], list[str]]:
    """Those of a JSON report of pip-audit, and the packages that it had no advisories for."""
    found, unanswered = [], []
    for package in json.loads(report)["dependencies"]:
        if "skip_reason" in package:
            unanswered.append(package["name"])
        for one in package.get("vulns", ()):
            fixed = tuple(one["fix_versions"])
            found.append(Vulnerability(package["name"], package["version"], one["id"], fixed))
    return found, unanswered


def looked_up(constraints: Path, osv: str = "") -> tuple[list[Vulnerability], list[str]]:
    """What pip-audit finds for the pinned versions, by the index or an OSV server."""
    command = [
        sys.executable, "-m", "pip_audit", "--requirement", str(constraints), "--no-deps",
        "--disable-pip", "--format", "json", "--progress-spinner", "off",
    ]  # fmt: skip
    if osv:
        command += ["--vulnerability-service", "osv", "--osv-url", osv]
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.stdout:
        print(done.stderr, file=sys.stderr)
        return [], list(pinned(constraints))
    return vulnerabilities(done.stdout)


def main(
    osv: Annotated[str, typer.Option(help="Address of an OSV server's query, not the index.")] = "",
    advisories: Annotated[
        bool, typer.Option("--advisories", help="Fail where a package's advisories are not there.")
    ] = False,
) -> None:
    """Audit the environment that runs this."""
    pins, here = pinned(CONSTRAINTS), installed()
    problems = unpinned(pins, here)
    check = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    if check.returncode:
        problems += check.stdout.splitlines()
    found, unanswered = looked_up(CONSTRAINTS, osv)
    for one in found:
        if one.id not in WAIVED:
            mended = ", ".join(one.fixed_in) or "no version yet"
            problems.append(f"{one.package} {one.version}: {one.id}, mended in {mended}")
    if unanswered:
        said = f"no advisories for {len(unanswered)} of {len(pins)} packages are to be had here"
        if advisories:
            problems.append(said)
        else:
            print(said)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        raise SystemExit(1)
    known = len(pins) - len(unanswered)
    print(f"{len(here)} packages as pinned; no known vulnerability in {known} that were looked up")


if __name__ == "__main__":
    typer.run(main)
