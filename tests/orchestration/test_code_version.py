"""A step's cache key follows the code that its own work reaches, and nothing else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from layerwright import ROOT
from layerwright.infra.rekeyed import rekeyed, versions, versions_in
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.evaluation import Champion
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.orchestration.code_version import closure, named_in
from layerwright.tasks.recipe.choose import ChooseOptions
from layerwright.tasks.strategies.streaming import Streaming

PROFILE = "layerwright.tasks.profile.model"
EVALUATE = "layerwright.tasks.evaluate.models"
# the steps of a run, with the components that its recipe names
RUN = {
    "fetch": ("layerwright.tasks.fetch.model", []),
    "profile": (PROFILE, ["sensitivity", "streaming"]),
    "choose": ("layerwright.tasks.choose.step", ["milp", "streaming"]),
    "convert": ("layerwright.tasks.convert.checkpoint", ["keep", "streaming"]),
    "finetune": ("layerwright.tasks.finetune.healing", ["logit_kl"]),
    "evaluate": (EVALUATE, ["perplexity"]),
}
ASK = """
import json, sys
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.orchestration.code_version import code_version
run = json.loads(sys.argv[1])
specs = {step: [Spec(name=name) for name in names] for step, (_, names) in run.items()}
print(json.dumps({step: code_version(module, specs[step]) for step, (module, _) in run.items()}))
"""


class Copy:
    """A copy of the package, to edit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("flows", "tasks", "kernels", "infra"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT.joinpath(name).resolve(), root / name, ignore=ignored)
        shutil.copytree(ROOT, root / "layerwright", symlinks=True)
        self.before = self.versions()

    def versions(self) -> dict[str, str]:
        given = [sys.executable, "-c", ASK, json.dumps(RUN)]
        env = os.environ | {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(given, env=env, cwd=self.root, capture_output=True, check=True)
        return json.loads(done.stdout)

    def changed_by(self, *edits: tuple[str, str, str]) -> set[str]:
        """The steps whose code version differs after edits (file, text, other text)."""
        originals = {}
        for file, text, other in edits:
            path = self.root / file
            originals[path] = path.read_text()
            assert text in originals[path], f"{file} has no {text!r}"
            path.write_text(originals[path].replace(text, other, 1))
        after = self.versions()
        for path, original in originals.items():
            path.write_text(original)
        return {step for step, version in after.items() if version != self.before[step]}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("package"))


def test_words_change_no_key(copy: Copy) -> None:
    assert (
        copy.changed_by(
            ("tasks/contracts/references.py", '"""', '"""Said otherwise.\n\n'),
            ("tasks/contracts/evaluation.py", 'Contract):\n    """', 'Contract):\n    """New. '),
            ("tasks/orchestration/locks.py", "import time\n", "import time  # a comment\n"),
            ("tasks/strategies/streaming.py", '    """', '    """New words. '),
            ("kernels/streaming_attention/dispatch.py", '"""', '"""\nNew words. '),
        )
        == set()
    )


def test_what_no_result_depends_on_changes_no_key(copy: Copy) -> None:
    edits = [
        ("tasks/orchestration/locks.py", "LEASE_SECONDS = 60.0", "LEASE_SECONDS = 61.0"),
        ("tasks/contracts/rollout.py", "(Contract):\n", "(Contract):\n    added: int = 0\n"),
        ("tasks/store/local.py", "import uuid\n", "import uuid\n\nADDED = 1\n"),
        ("tasks/strategies/local.py", "(Strategy):\n", "(Strategy):\n    added: int = 0\n"),
        ("tasks/evaluate/metrics/recall.py", "(Metric):\n", "(Metric):\n    added: int = 0\n"),
    ]
    assert copy.changed_by(*edits) == set()


@pytest.mark.parametrize(
    ("file", "text", "steps"),
    [
        ("tasks/evaluate/metrics/perplexity.py", "(RowsMetric):\n", {"evaluate"}),
        ("tasks/strategies/streaming.py", "(Strategy):\n", {"profile", "choose", "convert"}),
        ("tasks/choose/selectors/milp.py", "(Budgets, Selector):\n", {"choose"}),
        ("tasks/profile/profilers/sensitivity.py", "(ModelProfiler):\n", {"profile"}),
    ],
)
def test_the_body_of_a_component_changes_the_steps_that_use_it(
    copy: Copy, file: str, text: str, steps: set[str]
) -> None:
    assert copy.changed_by((file, text, f"{text}    added: int = 0\n")) == steps


def test_the_body_of_a_kernel_changes_the_steps_that_run_it(copy: Copy) -> None:
    edit = ("kernels/streaming_attention/reference.py", "import torch\n", "import torch\n\nX = 1\n")
    assert copy.changed_by(edit) == {"profile", "choose", "convert", "finetune", "evaluate"}


def test_a_release_note_can_say_which_steps_are_computed_anew(copy: Copy) -> None:
    metric = copy.root / "tasks/evaluate/metrics/perplexity.py"
    original = metric.read_text()
    metric.write_text(original.replace("(RowsMetric):\n", "(RowsMetric):\n    added: int = 0\n"))
    old = versions_in(copy.root)
    metric.write_text(original)
    assert list(rekeyed(old, versions())) == [
        "evaluate_models: recipes with perplexity",
        "measure_plans: recipes with perplexity",
    ]
    assert list(rekeyed({}, {"fetch_text": {"": "x"}})) == ["fetch_text: every recipe"]


def test_late_imports_and_shipped_code_count() -> None:
    reached = closure("layerwright.tasks.convert.checkpoint")
    assert "layerwright.tasks.hybrid.mixers.gated_recurrence" in reached
    assert "layerwright.kernels.streaming_attention.dispatch" in reached
    assert "layerwright.kernels.streaming_attention.triton_forward" in reached, "imported late"


def test_components_count_where_they_are_named() -> None:
    metric = "layerwright.tasks.evaluate.metrics.perplexity"
    assert metric not in closure(EVALUATE)
    assert metric in closure(EVALUATE, frozenset({"perplexity"}))
    assert metric not in closure(PROFILE, frozenset({"perplexity"}))
    # a profiler that builds strategies itself
    assert "layerwright.tasks.strategies.linear" in closure(
        PROFILE, frozenset({"sensitivity", "linear"})
    )


def test_names_are_found_at_any_depth() -> None:
    options = ChooseOptions(
        selector=Spec(name="milp", kv_bytes_ratio=0.5), strategies=(Spec(name="local"),)
    )
    item = PlanItem(start=0, stop=1, strategy="linear", params={"inner": [{"name": "remove"}]})
    inputs = {"a": [options, (item,)], "b": Champion(version="keep"), "c": Streaming()}
    assert set(named_in(inputs)) == {"milp", "local", "linear", "remove", "streaming"}


def test_other_steps_do_not_count() -> None:
    for module, _ in RUN.values():
        here = module.split(".")[2]
        others = {"fetch", "profile", "choose", "convert", "finetune", "evaluate"} - {here}
        reached = closure(module)
        for other in {"orchestration", "gate", "report", "register", "store"} | others:
            assert not any(name.startswith(f"layerwright.tasks.{other}.") for name in reached), (
                f"{module} reaches {other}"
            )
