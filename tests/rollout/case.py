"""Two real versions of a tiny model in a registry, a recipe with a roll-out, and request logs.

The champion attends to everything, the challenger to 4 + 28 tokens: what fits into those they
answer alike, and longer prompts not.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from register.case import NAME, Case, accepted, crown, evaluation
from tiny import LAYERS
from tiny_checkpoint import tiny_ref, write_tiny_inputs

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.evaluation import Champion
from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem
from layerwright.tasks.contracts.references import Calibration, TextRef
from layerwright.tasks.contracts.rollout import Request
from layerwright.tasks.convert.checkpoint import convert_model
from layerwright.tasks.recipe.recipe import load_recipe
from layerwright.tasks.recipe.rollout import RolloutPolicy
from layerwright.tasks.rollout.replay import read_for
from layerwright.tasks.store.local import LocalStore

NO_TEXT = TextRef(uri="", sha256="0" * 64, bytes=0, source="", documents=0, characters=0)
ROWS = Calibration(text=NO_TEXT, rows=1, row_tokens=64)
SHORT, LONG = "The clerk, {}", "My neighbour's cat repaired the old engine of the harbour, {}"
BLOCK = """\
price: {device_hour: 3.6, currency: EUR}
rollout:
  approval: {author: platform team, reason: staged}
  stages:
    - {share: 0, requests: 8}
    - {share: 0.05, requests: 5}
    - {share: 0.25, requests: 8}
    - {share: 1, requests: 8}
  looks: 2
  min_items: 5
  max_new_tokens: 6
  limits:
    - {figure: errors, limit: 0.1, on: value}
    - {figure: latency_p95, limit: 1.0e6}
    - {figure: cost, limit: 1.0e6}
    - {figure: agreement, limit: 0.9}
    - {figure: likelihood, limit: 0.01}
"""


def build_home(folder: Path) -> Path:
    """A home with version 1, the champion, and version 2, the challenger; and a recipe beside."""
    home = folder / ".layerwright"
    recipe = write_tiny_inputs(folder)
    text = recipe.read_text().replace("model_name: tiny-hybrid", f"model_name: {NAME}")
    recipe.write_text(text + BLOCK)
    home.mkdir()
    store = LocalStore(home / "store")
    (home / "report.html").write_text("<h1>report</h1>")
    base = tiny_ref(store.put_tree(folder / "model"), source="local:tiny")
    streaming = {"strategy": "streaming", "params": {"sinks": 4, "window": 28}}
    now = datetime.now(UTC)
    for version, item in (("1", {"strategy": "keep"}), ("2", streaming)):
        plan = ConversionPlan(
            model_sha256=base.sha256,
            layers=LAYERS,
            context_tokens=64,
            selector="by hand",
            items=(PlanItem(start=0, stop=LAYERS, **item),),
        )
        context = Context(store=store, workdir=folder / "work")
        candidate = convert_model(base, plan, ROWS, context)
        case = Case(
            store=store,
            uri=f"sqlite:///{home}/mlflow.db",
            page=home / "report.html",
            candidate=candidate,
            plan=plan,
            report=evaluation(candidate),
            decision=accepted(candidate, now),
        )
        if version == "2":
            beside = Champion(version="1", checkpoint=candidate)
            case = case.but(report={"champion": beside})
        case.register(now)
        if version == "1":
            crown(case, "1")
    return home


def policy_of(folder: Path) -> RolloutPolicy:
    policy = load_recipe(folder / "recipe.yaml")[0].rollout
    assert policy is not None
    return policy


def short(index: int) -> Request:
    return Request(id=f"r{index}", prompt=SHORT.format(index))


def write_log(
    folder: Path, count: int, long_from_stage: int | None = None, name: str = "log.jsonl"
) -> Path:
    """Requests that both answer alike, until a stage begins from which on they do not."""
    requests = [short(index) for index in range(count)]
    if long_from_stage is not None:
        begin = 0
        for stage in policy_of(folder).stages[:long_from_stage]:
            begin += read_for(requests[begin:], NAME, stage, stage.requests)[0]
        for index in range(begin, count):
            changed = {"prompt": LONG.format(index)}
            requests[index] = requests[index].model_copy(update=changed)
    path = folder / name
    lines = (json.dumps(one.model_dump(exclude_none=True)) for one in requests)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path
