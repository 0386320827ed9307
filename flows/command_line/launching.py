"""Start the flow of a prepared run, while its Prefect server runs."""

from __future__ import annotations

import importlib
from typing import Any

from layerwright.flows.command_line.options import INTERRUPTED
from layerwright.flows.session.prepare import Prepared
from layerwright.tasks.errors import LayerwrightError


class Interrupted(LayerwrightError):  # noqa: N818 - the user's decision is no error
    """Ctrl-C during a run; the message names the kept results and the command to continue."""

    exit_status = INTERRUPTED


def start(prepared: Prepared, **more: Any) -> Any:
    """Run the flow that a run was prepared for.

    Args:
        more: parameters of this flow in addition to those that every flow takes.

    Returns:
        The flow's result, a contract.

    Raises:
        Interrupted: the user pressed Ctrl-C.
    """
    # late: Prefect reads its settings when it is imported, and `prepare` sets them
    flow = getattr(importlib.import_module(f"layerwright.flows.{prepared.flow}"), prepared.flow)
    with prepared.server:
        folder = prepared.record()
        try:
            return flow(
                recipe=str(prepared.path), home=str(prepared.home), run=folder.run_id, **more
            )
        except KeyboardInterrupt:
            how = f"`layerwright resume {folder.run_id} --home {prepared.home}` continues it"
            if prepared.flow != "convert":
                how = f"`layerwright {prepared.flow}` with the same arguments uses them"
            raise Interrupted(
                f"the results of finished steps of run {folder.run_id} are kept; {how}"
            ) from None
