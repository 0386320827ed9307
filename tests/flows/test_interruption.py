"""Runs that are killed in the middle of a step, and go on: nothing is lost or done twice."""

import signal
from collections.abc import Callable
from pathlib import Path

import psutil
from layerwright_process import kill_when, last_line, layerwright, signal_when
from tiny_checkpoint import write_tiny_inputs


def says(marker: str) -> Callable[[str], bool]:
    return lambda said: marker in said


def servers(home: Path) -> list[psutil.Process]:
    """Prefect servers that work under a home folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if "uvicorn" in process.cmdline() and process.environ().get("PREFECT_HOME") == str(
                home / "prefect"
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_kill_in_each_step_then_go_on(tmp_path: Path) -> None:
    recipe = write_tiny_inputs(tmp_path, num_hidden_layers=7)  # it says so after 5 layers
    recipe.write_text(recipe.read_text().replace("steps: 6", "steps: 24"))  # and after 10 steps
    for marker in (
        "fetch     started",
        "sensitivity: layer 5 of 7",
        "finetune step 10 of 24",
        "evaluate  started",
    ):
        last = marker.startswith("evaluate")  # with a server of its own, which must not outlive it
        kill_when(says(marker), "convert", "recipe.yaml", cwd=tmp_path, embedded=last)
    left = servers(tmp_path / ".layerwright")
    assert left, "the killed run leaves its server behind"
    first = last_line(layerwright("runs", "--json", cwd=tmp_path))["runs"][0]
    result = layerwright("resume", first["run_id"], "--json", cwd=tmp_path, embedded=True)
    assert result.returncode == 0, result.stderr
    summary = last_line(result)
    assert summary["run_id"] == first["run_id"]
    assert summary["cache_hits"] == ["fetch", "profile", "choose", "convert", "finetune"]
    assert not any(server.is_running() for server in left)
    assert not servers(tmp_path / ".layerwright")

    # the same inputs, never interrupted, give the same plan and the same bytes
    plain = tmp_path / "plain"
    untouched = layerwright("convert", "recipe.yaml", "--home", str(plain), "--json", cwd=tmp_path)
    again = last_line(untouched)
    assert again["plan"] == summary["plan"]
    assert again["checkpoint"]["sha256"] == summary["checkpoint"]["sha256"]


def test_ctrl_c_says_what_was_kept_and_how_to_resume(tmp_path: Path) -> None:
    recipe = write_tiny_inputs(tmp_path)
    recipe.write_text(recipe.read_text().replace("steps: 6", "steps: 400"))
    status, said = signal_when(
        says("finetune step 10 of 400"),
        *("convert", "recipe.yaml"),
        cwd=tmp_path,
        embedded=False,
        with_signal=signal.SIGINT,
    )
    assert status == 130, said
    (run,) = last_line(layerwright("runs", "--json", cwd=tmp_path))["runs"]
    assert (run["state"], run["reason"]) == ("failed", "interrupted")
    last = said.strip().splitlines()[-1]
    assert last.startswith("interrupted: ")
    assert f"`layerwright resume {run['run_id']} " in last
    assert "Traceback" not in said
