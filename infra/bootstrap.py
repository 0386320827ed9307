"""Set up a Prefect server for Layerwright; the command can be repeated.

    python -m layerwright.infra.bootstrap [--here] [--cpu-slots 4] [--gpu-slots 1]

It creates the work pools ``cpu`` and ``gpu``, the queue ``steps`` of the pool ``cpu``, a global
concurrency limit for each pool's slots, an automation that crashes flow runs whose process was
lost, and the deployments of infra/prefect.yaml. PREFECT_API_URL gives the server.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.states import StateType

from layerwright.tasks.orchestration.work_pool import slots_of

ROOT = Path(__file__).resolve().parents[1]
DEPLOYMENTS = ROOT / "infra" / "prefect.yaml"
LOST_AFTER_SECONDS = 90  # three heartbeats of PREFECT_FLOWS_HEARTBEAT_FREQUENCY=30
ENDS = ("Completed", "Failed", "Cancelled", "Crashed")
LOST = "layerwright: lost flow runs"


def bootstrap(
    here: Annotated[
        bool, typer.Option("--here", help="Workers use this folder instead of a git clone.")
    ] = False,
    cpu_slots: Annotated[int, typer.Option(min=1, help="Concurrent steps in the pool cpu.")] = 4,
    gpu_slots: Annotated[int, typer.Option(min=1, help="GPUs in the pool gpu.")] = 1,
    lost_after: Annotated[
        int, typer.Option(min=30, help="Seconds without a heartbeat until a run counts as lost.")
    ] = LOST_AFTER_SECONDS,
) -> None:
    """Create or update everything that Layerwright needs on the Prefect server."""
    if not os.environ.get("PREFECT_API_URL"):
        raise typer.BadParameter("set PREFECT_API_URL to the address of the Prefect server")
    with get_client(sync_client=True) as client:
        for pool, slots in (("cpu", cpu_slots), ("gpu", gpu_slots)):
            _pool(client, pool)
            client.upsert_global_concurrency_limit_by_name(slots_of(pool), slots)
        _queue(client, "cpu", "steps")
        _automation(client, lost_after)
    deploy(here)
    typer.echo(f"pools cpu ({cpu_slots} slots) and gpu ({gpu_slots}) and the deployments are ready")


def _pool(client: SyncPrefectClient, name: str) -> None:
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type="process"))


def _queue(client: SyncPrefectClient, pool: str, name: str) -> None:
    """Steps of running runs have their own queue, with priority over new runs."""
    try:
        client.read_work_queue_by_name(name, work_pool_name=pool)
    except ObjectNotFound:
        client.create_work_queue(name, priority=1, work_pool_name=pool)


def _automation(client: SyncPrefectClient, seconds: int) -> None:
    """Crash flow runs without a heartbeat for ``seconds``, so that their steps are retried."""
    automation = AutomationCore(
        name=LOST,
        description="Crashes flow runs without a heartbeat, so that their steps are retried.",
        trigger=EventTrigger(
            match=ResourceSpecification.model_validate(
                {"prefect.resource.id": "prefect.flow-run.*"}
            ),
            after={"prefect.flow-run.heartbeat"},
            expect={f"prefect.flow-run.{event}" for event in ("heartbeat", *ENDS)},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                message=f"no heartbeat for {seconds} s: the process is lost",
                force=False,
            )
        ],
    )
    if existing := client.read_automations_by_name(LOST):
        client.update_automation(existing[0].id, automation)
    else:
        client.create_automation(automation)


def deploy(here: bool) -> None:
    """Create or update all deployments of infra/prefect.yaml."""
    document: dict[str, Any] = yaml.safe_load(DEPLOYMENTS.read_text(encoding="utf-8"))
    if here:
        step = {"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}
        document["pull"] = [step]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prefect.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        command = ["--no-prompt", "deploy", "--all", "--prefect-file", str(path)]
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *command], cwd=ROOT, capture_output=True, text=True
        )
    if done.returncode:
        raise SystemExit(f"prefect {' '.join(command)}:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    typer.run(bootstrap)
