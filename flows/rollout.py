"""The rollout flow: give a challenger growing shares of a request log, then decide on it."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import Completed

from layerwright.flows.session.champion import now, one_at_a_time
from layerwright.flows.session.rollouts import Course, prepare_rollout
from layerwright.flows.session.session import home_at, local_file
from layerwright.tasks.contracts.rollout import RolloutResult
from layerwright.tasks.rollout.start import open_rollout
from layerwright.tasks.rollout.state import decisions_of
from layerwright.tasks.tracking import connect


@flow(flow_run_name="roll out {model}", persist_result=False, validate_parameters=False)
def rollout(
    model: str,
    recipe: str,
    log: str,
    assignments: list[str] | None = None,
    home: str | None = None,
    restart: bool = False,
) -> Any:
    """For each stage: replay, decide, advance. Promote at the end; roll back on a regression.

    The same call continues a killed roll-out. The state is `Completed` if the challenger
    became champion, else it has the name of the roll-out's status.

    Args:
        log: the request log: a path, or ``s3://bucket/key``.
        recipe, assignments, home: as for `convert`.
        restart: start again at the first stage, even if the version had a roll-out before.

    Raises:
        InputError, PromotionError: see `prepare_rollout` and `open_rollout`.
    """
    with local_file(recipe) as path, local_file(log) as requests:
        ready = prepare_rollout(model, path, assignments or [], requests, home_at(home))
    uri, stages = ready.registry.tracking_uri, len(ready.policy.stages)
    known = (model, ready.options, ready.policy, ready.requests)
    with one_at_a_time(model, uri, work="roll-out"):
        with connect(uri) as client:
            state = open_rollout(client, *known, now=now(), restart=restart)
        course, move = Course(ready, state), None
        while course.state.status == "running":
            if course.state.stage < stages:
                course.look()
            else:
                move = course.promote()
        with connect(uri) as client:
            decisions = decisions_of(client, course.state)
    state, records = course.state, str(course.folder)
    result = RolloutResult(state=state, stages=decisions, move=move, records=records)
    if state.status == "promoted":
        return result
    return Completed(name=state.status.capitalize(), message=state.reason, data=result)
