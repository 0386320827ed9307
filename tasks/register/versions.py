"""Registered versions: found by what a user names, and read as contracts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.register.evidence import TAG

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.tracking import MlflowClient

CHECKPOINT_TAGS = (
    "checkpoint_uri",
    "manifest_sha256",
    "checkpoint_bytes",
    "base_sha256",
    "plan_sha256",
)
_ADDRESS = re.compile(r"(?P<model>[^/:@]+)(@(?P<alias>[^/:@]+)|/(?P<version>\d+))?")


@dataclass(frozen=True)
class Address:
    """What a user names: ``NAME``, ``NAME@alias`` or ``NAME/version``."""

    model: str
    alias: str | None = None
    version: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises InputError where it is none of the three."""
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise InputError(
                f"{text!r} names no registered model", expected="NAME, NAME@alias or NAME/version"
            )
        return cls(**found.groupdict())

    def __str__(self) -> str:
        if self.version:
            return f"{self.model}/{self.version}"
        return f"{self.model}@{self.alias}" if self.alias else self.model


def registered_model(client: MlflowClient, name: str) -> RegisteredModel | None:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def pointed_at(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version that an alias points at; None where there is no such model or alias."""
    model = registered_model(client, name)
    version = model.aliases.get(alias) if model else None
    return None if version is None else client.get_model_version(name, str(version))


def named_version(client: MlflowClient, address: Address) -> ModelVersion:
    """The version at an address with an alias or a version.

    Raises:
        InputError: no such model, alias or version.
    """
    from mlflow.exceptions import MlflowException

    model = registered_model(client, address.model)
    if model is None:
        raise InputError(
            f"no model named {address.model!r} in {client.tracking_uri}",
            remedy="`layerwright convert` registers what its gate accepts",
        )
    version = address.version
    if address.alias is not None:
        version = model.aliases.get(address.alias)
        if version is None:
            raise InputError(
                f"{address.model!r} has no alias {address.alias!r}",
                expected=f"one of {', '.join(sorted(model.aliases)) or 'none'}",
            )
    if version is None:
        raise InputError(
            f"{str(address)!r} names no version", expected="NAME@alias or NAME/version"
        )
    try:
        return client.get_model_version(address.model, str(version))
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise InputError(f"{address.model!r} has no version {version}") from error
        raise


def tag(version: ModelVersion, name: str) -> str | None:
    """The value of one of our tags."""
    return version.tags.get(f"{TAG}{name}")


def missing_tags(version: ModelVersion) -> tuple[str, ...]:
    """What the version does not say of its checkpoint."""
    return tuple(name for name in CHECKPOINT_TAGS if tag(version, name) is None)


def checkpoint_of(version: ModelVersion) -> CheckpointRef:
    """The checkpoint that a version stands for.

    Raises:
        StepError: tags are missing: the version was not made by Layerwright, or was cut off.
    """
    if missing := missing_tags(version):
        raise StepError(
            f"version {version.version} of {version.name} lacks the tags {', '.join(missing)}"
        )
    uri, sha256, size, base, plan = (tag(version, name) for name in CHECKPOINT_TAGS)
    return CheckpointRef.model_validate(
        {"uri": uri, "sha256": sha256, "bytes": size, "base_sha256": base, "plan_sha256": plan}
    )


def store_of(checkpoint: CheckpointRef) -> str:
    """The address of the store that a registered checkpoint lies in."""
    return checkpoint.uri.rpartition("/trees/")[0]
