"""A disk that fills while a checkpoint is written, by a limit on the size of files."""

from pathlib import Path

from facts import missing
from layerwright_process import Forked, environment, last_line, layerwright
from tiny_checkpoint import write_tiny_inputs

LIMIT_KIB = 6_000  # the weights below have 10 MB, Prefect's database fewer than 6


def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(tmp_path: Path) -> None:
    write_tiny_inputs(tmp_path, intermediate_size=4300)
    assert (tmp_path / "model" / "model.safetensors").stat().st_size > LIMIT_KIB * 1024
    convert = ("convert", "recipe.yaml", "--json", "--home", "home")
    limited = Forked(convert, tmp_path, environment(), file_bytes=LIMIT_KIB * 1024)
    result = limited.communicate()
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert not missing(result.stderr, "no space left")
    assert not list((tmp_path / "home" / "store" / "trees").glob("*/model.safetensors"))

    again = layerwright(*convert, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert last_line(again)["decision"] == "accepted"
