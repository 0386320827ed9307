"""Transfer a checkpoint to and from S3 through the store, with boto3, and to the disk.

    python -m benchmarks.s3_transfer --store s3://BUCKET/PREFIX [--gigabytes 4] [--repeats 3]

The server is that of the environment: `make stack-up` starts SeaweedFS and says where. Arms are
interleaved; medians in seconds with the range. The store hashes what it sends and checks what it
receives, plain boto3 does neither; ``copy`` reads and writes the same files once. Memory is what
the process grows by over an arm, at its highest (sampled every 20 ms). Everything is removed again.
"""

import hashlib
import json
import os
import shutil
import statistics
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import psutil
import typer

from benchmarks.common import spread, watched
from layerwright.tasks.store.manifest import build_manifest
from layerwright.tasks.store.s3 import S3Store, s3_client

SHARD_BYTES = 10**9


def write_files(folder: Path, total: int) -> list[Path]:
    """Random shards: a server could pack anything else."""
    folder.mkdir(parents=True)
    files: list[Path] = []
    while total > 0:
        path = folder / f"model-{len(files):05}.safetensors"
        with path.open("wb") as file:
            for start in range(0, min(total, SHARD_BYTES), 2**24):
                file.write(os.urandom(min(2**24, total - start, SHARD_BYTES - start)))
        total -= SHARD_BYTES
        files.append(path)
    return files


def arms(store: S3Store, files: list[Path], into: Path) -> dict[str, Callable[[], object]]:
    """One round: each arm's work, to be done in this order, in folders of the round's own."""
    client = s3_client()
    shutil.copytree(files[0].parent, into / "given")
    (into / "plain").mkdir()
    sha256 = hashlib.sha256(build_manifest(into / "given")).hexdigest()

    def upload() -> None:
        for file in files:
            client.upload_file(str(file), store.bucket, f"{store.prefix}/plain/{file.name}")

    def download() -> None:
        for file in files:
            target = str(into / "plain" / file.name)
            client.download_file(store.bucket, f"{store.prefix}/plain/{file.name}", target)

    return {
        "copy": lambda: shutil.copytree(files[0].parent, into / "copy"),
        "upload, store": lambda: store.put_tree(into / "given"),
        "upload, boto3": upload,
        "download, store": lambda: store.open_tree(sha256),
        "download, boto3": download,
    }


def measure(uri: str, work: Path, total: int, repeats: int) -> dict[str, object]:
    files = write_files(work / "files", total)
    seconds: dict[str, list[float]] = {}
    grown: dict[str, int] = {}
    process = psutil.Process()
    for _ in range(repeats):
        into = work / "round"
        store = S3Store(f"{uri}/benchmark-{uuid.uuid4().hex[:8]}", into / "cache")
        try:
            for name, call in arms(store, files, into).items():
                before = process.memory_info().rss
                with watched(lambda: process.memory_info().rss) as told:
                    call()
                seconds.setdefault(name, []).append(told["seconds"])
                grown[name] = max(grown.get(name, 0), told["peak"] - before)
        finally:
            store.remove([entry.key for entry in store.entries("")])
        shutil.rmtree(into)
    return {
        name: {
            "seconds": spread(times),
            "mb_per_s": round(total / 1e6 / statistics.median(times)),
            "memory_growth_mb": round(grown[name] / 1e6),
        }
        for name, times in seconds.items()
    }


def main(
    store: Annotated[str, typer.Option()],
    gigabytes: float = 4,
    repeats: int = 3,
    work: Path | None = None,
) -> None:
    """Transfer files to and from S3; WORK is where they are written: the disk's arm."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        result = measure(store.rstrip("/"), Path(folder), int(gigabytes * 10**9), repeats)
    print(json.dumps({"gigabytes": gigabytes, "arms": result}, indent=1))


if __name__ == "__main__":
    typer.run(main)
