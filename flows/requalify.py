"""The requalify flow: a registered version against its base and the champion, on fresh data."""

from __future__ import annotations

import json
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.events import emit_event

from layerwright.flows.convert import tracking_uri
from layerwright.flows.session.environment import versions
from layerwright.flows.session.inputs import evaluated_texts, fetch_texts
from layerwright.flows.session.runs import RunFolder
from layerwright.tasks.contracts.evaluation import Champion, EvalReport
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.references import CheckpointRef, ModelRef
from layerwright.tasks.contracts.requalification import Alarm, Requalification
from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.task import evaluate_models
from layerwright.tasks.fetch.model import stored_model
from layerwright.tasks.fetch.task import fetch_model
from layerwright.tasks.gate.task import decide
from layerwright.tasks.gate.watch import alarms_of
from layerwright.tasks.orchestration.place import Place, Run
from layerwright.tasks.recipe.recipe import Recipe
from layerwright.tasks.register.champion import current_champion
from layerwright.tasks.register.evidence import metric_key
from layerwright.tasks.register.requalification import (
    point_of,
    record_requalification,
    registered_figures,
    trend_of,
)
from layerwright.tasks.register.versions import Address, checkpoint_of, named_version
from layerwright.tasks.report.requalification_bundle import RequalificationBundle
from layerwright.tasks.report.summary import gate_markdown
from layerwright.tasks.report.task import write_requalification
from layerwright.tasks.tracking import connect, refuse_missing


@flow(name="requalify", flow_run_name="{run_id}", validate_parameters=False)
def requalify(
    recipe: Recipe, pins: dict[str, str], run_id: str, place: Place, address: str
) -> Requalification:
    """fetch, evaluate, gate, watch, report; the decision goes to the version's tags.

    Args:
        address: ``NAME@alias`` or ``NAME/version``.

    Raises:
        InputError: no such version, or its checkpoint or base is not in the recipe's store.
    """
    assert recipe.registry is not None  # checked before it started
    assert recipe.evaluate is not None
    run, uri, wanted = Run(place), tracking_uri(recipe, place.home), Address.parse(address)
    refuse_missing(uri)
    with connect(uri) as client:
        version = named_version(client, wanted)
        checkpoint = checkpoint_of(version)
        registered = registered_figures(client, version)
    base = base_of(checkpoint, recipe, pins, run)
    champion = current_champion(
        recipe.registry.model_copy(update={"model_name": version.name}),
        tracking_uri=uri,
        base_sha256=base.sha256,
        store=place.open_store(),
    )
    report = measured(recipe, pins, base, checkpoint, _other_than(champion, version.version), run)
    decision = decide(report, recipe.gate, run=run)
    alarms = alarms_of(report, recipe.watch, _by_metric(report, registered))
    folder = RunFolder(Path(place.home), run_id)
    with connect(uri) as client:
        trend = (*trend_of(client, version), point_of(report, decision, run_id, alarms))
        record = folder.record()
        bundle = RequalificationBundle(
            run_id=run_id,
            recipe_name=recipe.name,
            recipe_yaml=record.recipe_text,
            started_at=record.started_at,
            finished_at=decision.decided_at,
            registered_name=version.name,
            version=str(version.version),
            model=base,
            evaluation=report,
            gate=decision,
            watch=recipe.watch,
            alarms=alarms,
            trend=trend,
            seconds=run.seconds,
            cache_hits=run.cache_hits,
            environment=versions() | {"device": report.device},
        )
        path = folder.path / "report.html"
        page = write_requalification(bundle, str(path), run=run)
        kept = record_requalification(client, version, report, decision, run_id, alarms, path)
    for alarm in alarms:
        _raise_alarm(alarm, version.name, str(version.version), run_id)
    found = Requalification(
        run_id=run_id,
        model=version.name,
        version=str(version.version),
        decision="accepted" if decision.accepted else "rejected",
        failed_checks=decision.failed(),
        alarms=alarms,
        metrics={arm: report.by_arm(arm) for arm in report.arms},
        trend=trend,
        seconds={step: round(spent, 2) for step, spent in run.seconds.items()},
        cache_hits=run.cache_hits,
        mlflow_run=kept,
        report=page.uri,
    )
    _keep(found, report, decision, folder)
    return found


def base_of(checkpoint: CheckpointRef, recipe: Recipe, pins: dict[str, str], run: Run) -> ModelRef:
    """The base that a checkpoint was made from: out of the store, or fetched as the recipe says.

    Raises:
        InputError: the store lacks the checkpoint, or the recipe's model is another.
    """
    store = run.place.open_store()
    if not store.has_tree(checkpoint.sha256):
        raise InputError(
            f"the store {store.uri} does not have {checkpoint.uri}",
            where="store",
            remedy="name the store that the version was registered from",
        )
    if store.has_tree(checkpoint.base_sha256):
        lineage = store.open_tree(checkpoint.sha256) / "layerwright.json"
        source = json.loads(lineage.read_bytes())["base"]["source"]
        return stored_model(checkpoint.base_sha256, store, source)
    model = fetch_model(recipe.model, recipe.data_root, pins["model"], run=run)
    if model.sha256 != checkpoint.base_sha256:
        raise InputError(
            f"the checkpoint was made from the base {checkpoint.base_sha256}, which the store "
            f"does not have; {model.source} is {model.sha256}",
            where="model.source",
            remedy="name the base that it was made from, with its dtype",
        )
    return model


def measured(
    recipe: Recipe,
    pins: dict[str, str],
    base: ModelRef,
    candidate: CheckpointRef,
    champion: Champion | None,
    run: Run,
) -> EvalReport:
    """The recipe's metrics on its texts, of checkpoints that exist already."""
    assert recipe.evaluate is not None
    texts = fetch_texts(recipe, pins, run, evaluated_texts(recipe))
    return evaluate_models(base, candidate, None, champion, texts, recipe.evaluate, run=run)


def _other_than(champion: Champion | None, version: str | int) -> Champion | None:
    """The champion, where it is not the version itself."""
    return champion if champion and champion.version != str(version) else None


def _by_metric(report: EvalReport, registered: dict[str, float]) -> dict[str, float]:
    """Figures that MLflow kept under its own spelling, by the names that metrics have here."""
    names = {metric_key(m.metric): m.metric for m in report.measurements}
    return {names[key]: value for key, value in registered.items() if key in names}


def _raise_alarm(alarm: Alarm, model: str, version: str, run_id: str) -> None:
    emit_event(
        "layerwright.left-band",
        resource={
            "prefect.resource.id": f"layerwright.model.{model}",
            "prefect.resource.name": model,
            "layerwright.version": version,
        },
        payload={"version": version, "run_id": run_id, **alarm.model_dump(mode="json")},
    )


def _keep(
    found: Requalification, report: EvalReport, decision: GateDecision, folder: RunFolder
) -> None:
    folder.write("evaluation.json", report.model_dump_json(indent=1))
    folder.write("decision.json", decision.model_dump_json(indent=1))
    create_markdown_artifact(gate_markdown(decision), key="gate")
    create_link_artifact(found.report, key="report", link_text=f"Report of {found.run_id}")
    folder.write("requalification.json", found.model_dump_json(indent=1))
    told = (*found.failed_checks, *(f"{a.metric} left its band: {a.reason}" for a in found.alarms))
    folder.finish(found.decision, "; ".join(told))
