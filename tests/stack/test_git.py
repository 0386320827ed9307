"""Workers that pull the deployed commit run its code, whatever they have installed themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from layerwright_process import ROOT
from stack.driving import challenger, prefect
from tiny_checkpoint import write_tiny_inputs

from layerwright.infra.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

AUTHOR = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def bootstrap(stack: Stack, *arguments: str, **extra: str) -> None:
    command = [sys.executable, "-m", "layerwright.infra.bootstrap", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=stack.inherited | extra, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_deployed_commit_is_what_runs(
    stack: Stack, command: tuple[str, ...], tmp_path: Path
) -> None:
    # a commit that has a selector of its own, and the recipe that names it
    repository = tmp_path / "repository"
    git(tmp_path, "clone", "--quiet", str(ROOT), str(repository))
    choose = repository / "tasks" / "choose" / "selectors"
    code = (choose / "uniform.py").read_text().replace('= "uniform"', '= "of_this_commit"')
    (choose / "of_this_commit.py").write_text(code)
    recipe = write_tiny_inputs(tmp_path).read_text()
    selector = "{name: milp, kv_bytes_ratio: 0.6}\nfinetune"
    assert selector in recipe
    recipe = recipe.replace(selector, "{name: of_this_commit, layers: 2}\nfinetune")
    recipe = recipe.replace("tiny-hybrid", "tiny-of-this-commit").replace("max: 0.6", "max: 0.8")
    (repository / "recipes" / "of-this-commit.yaml").write_text(recipe)
    git(repository, "add", "--all")
    git(repository, *AUTHOR, "commit", "--quiet", "--message", "A selector")
    commit = git(repository, "rev-parse", "HEAD")

    try:
        bootstrap(stack, LAYERWRIGHT_REPOSITORY=f"file://{repository}", LAYERWRIGHT_COMMIT=commit)
        prefect(
            stack, "deployment", "run", "convert/scheduled", "--watch",
            "--param", 'recipe="recipes/of-this-commit.yaml"',
            "--param", f"assignments={json.dumps(list(command[1::2]))}",
        )  # fmt: skip
    finally:
        bootstrap(stack, "--here")
    version = challenger(stack, "tiny-of-this-commit")
    assert version.tags["layerwright.decision"] == "accepted"
