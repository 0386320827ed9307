"""The house rules: imports go down, and each outside library has one room that may use it."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(p for top in ("flows", "tasks", "kernels") for p in (ROOT / top).rglob("*.py"))
STEPS = {
    "fetch", "profile", "choose", "convert", "finetune", "evaluate", "gate", "register", "report",
}  # fmt: skip
# floors of the house: a module imports from lower floors, or from its own room
GROUND = {
    "errors", "contracts", "training_contracts", "cost_contracts", "gate_contracts",
    "promotion_contracts", "requalification_contracts", "comparison_contracts", "stability",
    "compute", "items", "located", "recipe", "registry", "store", "s3_store", "context", "progress",
    "tracking", "workload", "crossover", "returns", "run_contracts", "rollout_contracts",
    "history_contracts", "training_recipe",
}  # fmt: skip
PREFECT_FILES = ("task.py", "node.py", "pool.py", "locks.py", "results.py")
ORCHESTRATION = {"node", "pool", "locks", "results", "code_version"}
TRACKING = Path("tasks/tracking.py")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
    return found


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] != "tasks":
        return parts[0]
    if len(parts) == 2:
        return "ground" if parts[1] in GROUND | {"__init__"} else "orchestration"
    return parts[1]


def floor(name: str) -> int:
    order = {"ground": 0, "kernels": 0, "hybrid": 1, "strategies": 2, "measure": 3}
    if name in order:
        return order[name]
    return {"orchestration": 5, "flows": 6}.get(name, 4)


def module_room(module: str) -> str | None:
    top, _, rest = module.partition(".")
    if top in ("flows", "kernels"):
        return top
    if top != "tasks":
        return None
    name = rest.split(".")[0]
    if name in GROUND or not name:
        return "ground"
    return "orchestration" if name in ORCHESTRATION else name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    here = room(path)
    is_task = path.name == "task.py"
    for module in imports(path):
        there = module_room(module)
        if there is None or there == here:
            continue
        if is_task and there == "orchestration":
            continue  # a task.py is the step's thin node
        assert floor(there) < floor(here), f"{module} stands above or beside {here}"


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("prefect", lambda p: p.parts[0] == "flows" or p.name in PREFECT_FILES),
        ("mlflow", lambda p: p.parts[:2] == ("tasks", "register") or p == TRACKING),
        ("boto3", lambda p: p == Path("tasks/store/s3.py")),
        ("botocore", lambda p: p == Path("tasks/store/s3.py")),
        ("triton", lambda p: p.parts[0] == "kernels"),
    ],
)  # fmt: skip
def test_a_library_has_one_room(library: str, allowed) -> None:
    users = {
        path.relative_to(ROOT)
        for path in FILES
        if any(module.split(".")[0] == library for module in imports(path))
    }
    assert {str(path) for path in users if not allowed(path)} == set()


def test_the_shipped_model_needs_torch_and_transformers_alone() -> None:
    # huggingface_hub comes with transformers and holds the decorator of its configs; triton is
    # imported where it is used, tests/hybrid/test_export.py loads a checkpoint without it
    allowed = {
        "torch",
        "transformers",
        "huggingface_hub",
        "tasks",
        "kernels",
        *sys.stdlib_module_names,
    }
    for path in FILES:
        if room(path) in ("hybrid", "kernels"):
            also = {"triton"} if room(path) == "kernels" else set()
            foreign = {m for m in imports(path) if m.split(".")[0] not in allowed | also}
            assert not foreign, f"{path.relative_to(ROOT)} imports {foreign}"
            ours = {m for m in imports(path) if m.startswith("tasks.")}
            assert all(m.startswith("layerwright.tasks.hybrid") for m in ours), path


def test_no_flow_bears_the_name_of_another_module() -> None:
    # Prefect loads flows by path with their folder first on sys.path
    taken = sys.stdlib_module_names
    assert {p.stem for p in (ROOT / "flows").glob("*.py")} & taken == set()


def test_kernels_has_no_version() -> None:
    # Transformers would take this project's folder for Hugging Face's package of that name
    assert "__version__" not in (ROOT / "kernels" / "__init__.py").read_text()


def test_no_module_is_above_400_lines() -> None:
    long = {
        str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text().splitlines())) > 400
    }
    assert not long
