"""A run whose store is an S3 server: trees and step results lie there, and are found again."""

from pathlib import Path

from layerwright_process import last_line, layerwright
from s3_server import client, s3_server
from tiny_checkpoint import write_tiny_inputs


def test_a_run_on_s3_is_cached_for_another_home(tmp_path: Path) -> None:
    write_tiny_inputs(tmp_path)
    with s3_server(tmp_path / "s3") as server:
        store = f"s3://{server.bucket}/runs"
        command = ("convert", "recipe.yaml", "--json", "--set", f"store={store}")
        result = layerwright(*command, cwd=tmp_path, **server.environment())
        assert result.returncode == 0, result.stderr
        first = last_line(result)
        assert first["checkpoint"]["uri"].startswith(f"{store}/trees/")
        listed = client(server).list_objects_v2(Bucket=server.bucket, Prefix="runs/")
        keys = {entry["Key"] for entry in listed["Contents"]}
        assert f"runs/trees/{first['checkpoint']['sha256']}/manifest.json" in keys
        assert any(key.startswith("runs/results/evaluate-") for key in keys)

        # another home on the same store, as on another machine: no step is done again
        elsewhere = layerwright(
            *command, "--home", "elsewhere", cwd=tmp_path, **server.environment()
        )
        assert elsewhere.returncode == 0, elsewhere.stderr
        second = last_line(elsewhere)
        assert second["cache_hits"][-2:] == ["evaluate", "export"]
        assert second["checkpoint"] == first["checkpoint"]
        assert second["registered"]["found"] is False, "its registry is its own"
