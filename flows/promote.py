"""The flows that move a champion: promotion with approval, and rollback."""

from __future__ import annotations

from typing import Literal

from prefect import flow
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import Field

from layerwright.flows.session.champion import Registry, now, promote_champion, roll_back_champion
from layerwright.tasks.contracts.promotion import Approval, Move
from layerwright.tasks.recipe.registry import ApprovalPolicy
from layerwright.tasks.register.moves import PromotionError
from layerwright.tasks.register.promotion import Promotable, approved_by_policy
from layerwright.tasks.register.versions import Address


class ApprovalAnswer(RunInput):
    """A person's answer to a promotion that waits for approval."""

    approved: bool
    by: str = Field(min_length=1)
    reason: str = Field(min_length=1)


@flow(flow_run_name="promote {model}")
def promote(
    model: str,
    registry: Registry,
    version: str | None = None,
    alias: str = "challenger",
    approval: Approval | ApprovalPolicy | Literal["ask"] = "ask",
    wait_seconds: int = 24 * 3600,
) -> Move | None:
    """Promote a version once its evidence is valid and someone approved it.

    Args:
        version: the version; default: the one that ``alias`` points at.
        approval: given, or a policy, or ``ask``: the run pauses until a person answers in Prefect.
        wait_seconds: how long it waits for that.

    Returns, and raises: as `promote_champion`.
    """

    def approve(found: Promotable) -> Approval:
        if isinstance(approval, ApprovalPolicy):
            return approved_by_policy(approval, found, now())
        return approval if isinstance(approval, Approval) else _ask(found, wait_seconds)

    address = Address(model, version=version) if version else Address(model, alias=alias)
    return promote_champion(address, registry, approve)


@flow(flow_run_name="roll back {model}")
def rollback(model: str, registry: Registry, approval: Approval, to: str | None = None) -> Move:
    """Move the champion back, as `roll_back_champion`."""
    return roll_back_champion(model, registry, approval, to)


def _ask(found: Promotable, wait_seconds: int) -> Approval:
    decision = found.decision
    question = ApprovalAnswer.with_initial_data(
        description=f"Shall {found.address} become champion in place of "
        f"{f'version {found.champion}' if found.champion else 'none'}? The gate accepted it at "
        f"{decision.decided_at.isoformat()} in run {decision.run_id} (tier {decision.tier}, "
        f"waivers {decision.waivers})."
    )
    answer = pause_flow_run(wait_for_input=question, timeout=wait_seconds, poll_interval=2)
    if not answer.approved:
        raise PromotionError(f"{answer.by} does not approve {found.address}: {answer.reason}")
    return Approval(by=answer.by, reason=answer.reason)
