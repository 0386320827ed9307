"""The real model as a platform runs it: scheduled, approved, served, rolled back."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from layerwright_process import ROOT, environment, last_line, layerwright
from stack.driving import prefect

from layerwright.infra.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.real, pytest.mark.timeout(5400)]

NAME = "smollm2-135m-streaming"
# of docs/serving.md; the registry's address and the store's credentials are in the environment
SERVE = """
import importlib.util, sys
name, packages = sys.argv[1:]
sys.path.append(packages)
assert not any(importlib.util.find_spec(one) for one in ("tasks", "kernels", "flows"))
import mlflow
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = mlflow.artifacts.download_artifacts(f"models:/{name}@champion")
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
chat = [{"role": "user", "content": "What is the capital of France?"}]
inputs = tokenizer.apply_chat_template(
    chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
output = model.generate(**inputs, max_new_tokens=24, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :]))
"""


def scheduled(stack: Stack, command: tuple[str, ...], *more: str) -> None:
    """A run of the deployment that a schedule starts, to its end."""
    settings = [*command[1::2], *more]
    prefect(
        stack, "deployment", "run", "convert/scheduled", "--watch",
        "--param", f"assignments={json.dumps(settings)}",
    )  # fmt: skip


def approve(stack: Stack, by: str) -> None:
    """Run the deployment `promote`, and answer what it asks as a person does in Prefect."""
    from prefect.client.orchestration import get_client

    asked = ("deployment", "run", "promote/promote", "--watch", "--param", f'model="{NAME}"')
    said = {"approved": True, "by": by, "reason": "cheaper, same quality"}
    with (
        stack.client(),
        get_client(sync_client=True) as client,
        ThreadPoolExecutor(1) as beside,
    ):
        promotion = beside.submit(prefect, stack, *asked)
        end = time.monotonic() + 600
        while time.monotonic() < end and not promotion.done():
            paused = [r for r in client.read_flow_runs() if r.state and r.state.is_paused()]
            if paused:
                client.resume_flow_run(paused[0].id, run_input=said)
                break
            time.sleep(1)
        promotion.result()


def served(stack: Stack, folder: Path) -> str:
    """What the champion answers where this project is absent."""
    script = folder / "serve.py"
    script.write_text(SERVE)
    command = [sys.executable, "-I", "-S", str(script), NAME, sysconfig.get_path("purelib")]
    done = subprocess.run(
        command, cwd=folder, env=environment(**stack.environment), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_from_a_schedule_to_serving_and_back(
    stack: Stack, command: tuple[str, ...], tmp_path: Path
) -> None:
    def told(*arguments: str) -> dict:
        result = layerwright(
            *arguments, "--tracking-uri", stack.environment["MLFLOW_TRACKING_URI"], "--json",
            cwd=ROOT, begun=True, **stack.environment,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return last_line(result)

    scheduled(stack, command)
    (version,) = told("history", NAME)["versions"]
    assert (version["aliases"], version["decision"]) == (["challenger"], "accepted")
    approve(stack, "Ann")
    assert told("history", NAME)["champion"] == "1"
    assert "Paris" in served(stack, tmp_path)

    # the next week's, judged beside the champion
    scheduled(stack, command, "finetune.stages.0.steps=24")
    approve(stack, "Bo")
    found = told("history", NAME)
    assert found["champion"] == "2"
    assert found["versions"][0]["compared_champion"] == "1"
    assert "Paris" in served(stack, tmp_path)

    back = told("rollback", NAME, "--by", "Ann", "--reason", "complaints")
    assert (back["before"], back["version"]) == ("2", "1")
    found = told("history", NAME)
    assert found["champion"] == "1"
    assert [(move["action"], move["by"]) for move in found["moves"]] == [
        ("promoted", "Ann"), ("promoted", "Bo"), ("rolled back", "Ann"),
    ]  # fmt: skip
    assert "Paris" in served(stack, tmp_path)
