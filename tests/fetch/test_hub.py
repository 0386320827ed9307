"""The hub source: the real huggingface_hub client against a local server of its protocol."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fetch.hub_server import COMMIT, Hub, hub_server

ROOT = Path(__file__).resolve().parents[2]
MODEL = {
    "config.json": b"{}",
    "tokenizer.json": b"{ }",
    "model.safetensors": b"w" * 100_000,
    "pytorch_model.bin": b"pickle",
    "onnx/model.onnx": b"x" * 10,
    "original/consolidated.00.safetensors": b"c" * 10,
    "README.md": b"# it",
}
DATA = {"data/train-[1].jsonl": b'{"text": "a"}\n', "data/test.jsonl": b'{"text": "b"}\n'}
SCRIPT = """
import json, sys
from pathlib import Path
from layerwright.tasks.errors import LayerwrightError
from layerwright.tasks.fetch.sources import model_source, text_source
from layerwright.tasks.fetch.sources.source import names_in
from layerwright.tasks.recipe.recipe import ModelSource, TextSource
kind, source, files, work, actions = sys.argv[1:]
bound = (
    model_source(ModelSource(source=source), None) if kind == "model"
    else text_source(TextSource(source=source, files=(files,)), None)
)
said = {}
try:
    for action in actions.split(","):
        if action == "fetch":
            said["files"] = names_in(bound.fetch(Path(work)))
        else:
            said[action] = getattr(bound, action)()
except LayerwrightError as error:
    said["error"] = [type(error).__name__, str(error)]
print(json.dumps(said))
"""


@pytest.fixture
def hub():
    files = {"models/someone/tiny": dict(MODEL), "datasets/someone/texts": dict(DATA)}
    with hub_server(files) as running:
        yield running


def act(hub: Hub, home: Path, source: str, actions: str, kind: str = "model", files: str = "*"):
    """What the source says in a process of its own, which reads the endpoint at its start."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind, source, files, str(home / "work"), actions],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_branch_becomes_its_commit_and_only_the_checkpoint_comes(
    hub: Hub, tmp_path: Path
) -> None:
    said = act(hub, tmp_path, "hf:someone/tiny@main", "identity,size_bytes,fetch")
    assert said["identity"] == f"hf:model:someone/tiny@{COMMIT}"
    assert said["size_bytes"] == 100_009
    assert said["files"] == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert sorted(hub.sent) == said["files"]
    assert (tmp_path / "work/files/model.safetensors").read_bytes() == MODEL["model.safetensors"]


def test_a_commit_is_its_own_identity_without_network(tmp_path: Path) -> None:
    with hub_server({}) as hub:
        pass  # nobody listens any more
    said = act(hub, tmp_path, f"hf:someone/tiny@{COMMIT}", "identity")
    assert said == {"identity": f"hf:model:someone/tiny@{COMMIT}"}
    said = act(hub, tmp_path, f"hf:someone/tiny@{COMMIT}", "size_bytes")
    assert said["error"][0] == "StepError"


def test_texts_come_from_dataset_repositories(hub: Hub, tmp_path: Path) -> None:
    source = "hf:someone/texts@main"
    said = act(hub, tmp_path, source, "identity,fetch", "text", "data/train*")
    assert said["identity"] == f"hf:dataset:someone/texts@{COMMIT}"
    assert said["files"] == hub.sent == ["data/train-[1].jsonl"]


def test_a_download_that_breaks_off_goes_on(hub: Hub, tmp_path: Path) -> None:
    hub.cut = "model.safetensors"
    source = f"hf:someone/tiny@{COMMIT}"
    said = act(hub, tmp_path, source, "fetch")
    assert said["error"][0] == "StepError"
    assert not list((tmp_path / "work").rglob("model.safetensors"))
    hub.cut = None
    hub.sent.clear()
    assert act(hub, tmp_path, source, "fetch")["files"] == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert hub.sent == ["model.safetensors"]  # what had arrived was not sent again
    assert (tmp_path / "work/files/model.safetensors").read_bytes() == MODEL["model.safetensors"]


@pytest.mark.parametrize(
    ("source", "kind"),
    [("hf:someone/nothing@main", "model"), ("hf:someone/tiny@nowhere", "model"),
     ("hf:someone/tiny@main", "text")],
)  # fmt: skip
def test_what_is_not_there_is_told(hub: Hub, tmp_path: Path, source: str, kind: str) -> None:
    name, message = act(hub, tmp_path, source, "size_bytes", kind)["error"]
    assert name == "InputError"
    assert source in message


def test_pickles_are_refused_before_any_file_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    del hub.repositories["models/someone/tiny"]["model.safetensors"]
    del hub.repositories["models/someone/tiny"]["original/consolidated.00.safetensors"]
    name, message = act(hub, tmp_path, "hf:someone/tiny@main", "fetch")["error"]
    assert (name, hub.sent) == ("InputError", [])
    assert "pickles (pytorch_model.bin)" in message
