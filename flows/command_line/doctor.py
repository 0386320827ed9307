"""Check the versions, devices, stores and servers of this installation."""

import os
import shutil
import sys
import uuid
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Literal

from packaging.requirements import Requirement
from rich.console import Console

from layerwright.flows.command_line.options import new_table
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.errors import LayerwrightError
from layerwright.tasks.home import Home

State = Literal["ok", "note", "broken"]
Outcome = tuple[State, str]
SMALLEST_DISK = 3e9
MARKS = {"ok": "[green]ok[/green]", "note": "note", "broken": "[red]broken[/red]"}


class Finding(Contract):
    """The result of one check."""

    check: str
    state: State
    finding: str


class Findings(Contract):
    """The results of all checks, in order."""

    checks: tuple[Finding, ...]

    @property
    def broken(self) -> bool:
        return any(finding.state == "broken" for finding in self.checks)


def examine(home: Home, store: str | None) -> Findings:
    """Run every check."""
    checks: list[tuple[str, Callable[[], Outcome]]] = [
        ("python", lambda: ("ok", f"{sys.version.split()[0]} at {sys.executable}")),
        ("packages", _packages),
        ("devices", _devices),
        ("kernels", _kernels),
        ("home", lambda: _home(home)),
        ("store", lambda: _store(store or str(home.store), home)),
        ("prefect", _prefect),
        ("mlflow", lambda: _mlflow(home)),
    ]
    findings = []
    for name, check in checks:
        try:
            state, text = check()
        except (LayerwrightError, OSError, ImportError) as error:
            state, text = "broken", str(error)
        findings.append(Finding(check=name, state=state, finding=text))
    return Findings(checks=tuple(findings))


def _packages() -> Outcome:
    """Compare installed versions with the project's requirements."""
    wrong, seen = [], []
    for line in requires("layerwright") or []:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        seen.append(f"{requirement.name} {found}")
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found}, needed {requirement.specifier}")
    return ("broken", "; ".join(wrong)) if wrong else ("ok", ", ".join(seen))


def _devices() -> Outcome:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return "ok", ", ".join(names)
    return "ok", f"cpu only, {torch.get_num_threads()} threads"


def _kernels() -> Outcome:
    """The implementation of the model's operators on this machine, and the reason."""
    import torch

    from layerwright.kernels.choice import NAMES, VARIABLE, triton_obstacle

    wanted = os.environ.get(VARIABLE)
    if wanted is not None and wanted not in NAMES:
        return "broken", f"{VARIABLE}={wanted!r} is not one of {', '.join(NAMES)}"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    obstacle = triton_obstacle(device)
    if wanted == "triton" and obstacle is not None:
        return "broken", f"{VARIABLE}=triton, but {obstacle}"
    if wanted is not None:
        return "note", f"{wanted} on {device}, as {VARIABLE} says"
    if device == "cuda" and obstacle is None:
        return "ok", f"triton {version('triton')} on cuda"
    reason = obstacle or "triton runs there in its interpreter, for tests alone"
    return "ok", f"blockwise (torch) on {device}: {reason}"


def _home(home: Home) -> Outcome:
    existing = next(p for p in (home.root, *home.root.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if not os.access(existing, os.W_OK):
        return "broken", f"{existing} is not writable"
    text = f"{home}, {free / 1e9:.0f} GB free"
    return ("note", f"{text}: little") if free < SMALLEST_DISK else ("ok", text)


def _store(uri: str, home: Home) -> Outcome:
    """Write, read back and compare a small value."""
    from layerwright.tasks.store.open import open_store

    opened = open_store(uri, home.trees)
    token = uuid.uuid4().hex.encode()
    opened.write("doctor/probe", token)
    if opened.read("doctor/probe") != token:
        return "broken", f"{opened.uri} did not return what was written"
    return "ok", f"{opened.uri} takes and returns data"


def _prefect() -> Outcome:
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return "ok", "embedded: an ephemeral server for each run"
    from layerwright.flows.session.prefect_server import refuse_closed_server

    refuse_closed_server()
    return "ok", f"{url} answers"


def _mlflow(home: Home) -> Outcome:
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri.startswith("http"):
        return "ok", f"embedded: sqlite under {home}"
    from layerwright.tasks.tracking import refuse_closed_server

    refuse_closed_server(uri)
    return "ok", f"{uri} answers"


def show_findings(console: Console, findings: Findings) -> None:
    """The result of each check."""
    table = new_table("Doctor", "check", "state", "finding")
    for finding in findings.checks:
        table.add_row(finding.check, MARKS[finding.state], finding.finding)
    console.print(table)
