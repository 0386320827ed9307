"""A real S3 server for tests: SeaweedFS, on free ports of the loopback interface."""

from __future__ import annotations

import contextlib
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from layerwright.infra.seaweed import Identity, server_command, write_identities

START_SECONDS = 60
DOMAIN = "s3.test"


class Keys(NamedTuple):
    """What one identity signs with."""

    access_key: str
    secret_key: str


@dataclass
class S3Server:
    """Where it listens, who may use it (``reader`` may only read), and a bucket that exists.

    It also answers to ``<bucket>.DOMAIN``, for those who can resolve that name.
    """

    endpoint: str
    keys: Keys
    reader: Keys
    bucket: str
    command: list[str]
    folder: Path
    process: subprocess.Popen | None = None

    def start(self) -> None:
        """Listen on the same port with what the data folder has, and wait until it answers."""
        log = self.folder / "weed.log"
        with log.open("ab") as out:
            self.process = subprocess.Popen(self.command, stdout=out, stderr=out, cwd=self.folder)
        _wait(self, self.process, log)
        _take_writes(self)

    def kill(self) -> None:
        """End it as a lost machine would."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def environment(self, keys: Keys | None = None) -> dict[str, str]:
        """The variables by which boto3 finds this server and nothing else."""
        access_key, secret_key = keys or self.keys
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }


@contextmanager
def s3_server(folder: Path, bucket: str = "layerwright") -> Iterator[S3Server]:
    """Start the server with its data under ``folder``; it ends with the block."""
    own, reader = Identity.new("test"), Identity.new("reader", ("Read", "List"))
    data, identities = folder / "data", folder / "ids.json"
    data.mkdir(parents=True)
    write_identities(identities, [own, reader])
    command, endpoint = server_command(data, identities, f"-s3.domainName={DOMAIN}")
    keys = [Keys(one.access_key, one.secret_key) for one in (own, reader)]
    server = S3Server(endpoint, *keys, bucket, command, folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()  # its data is thrown away: an orderly end would take 10 s for nothing


def client(server: S3Server):
    """A boto3 client of this server, whatever the environment says."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.keys.access_key,
        aws_secret_access_key=server.keys.secret_key,
        region_name="us-east-1",
    )


def _wait(server: S3Server, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(server.endpoint, timeout=2)
        except urllib.error.HTTPError as error:
            if error.code == 403:  # it is up, and wants a signature
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"no S3 server after {START_SECONDS} s: {log.read_text()[-2000:]}")


def _take_writes(server: S3Server) -> None:
    end = time.monotonic() + START_SECONDS
    while True:  # the S3 side answers before the volume server has joined
        try:
            with contextlib.suppress(client(server).exceptions.BucketAlreadyExists):
                client(server).create_bucket(Bucket=server.bucket)
            client(server).put_object(Bucket=server.bucket, Key="ready", Body=b"1")
            client(server).delete_object(Bucket=server.bucket, Key="ready")
            return
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
