"""Find registered versions by address, read their tags, and list the trees they need."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerwright.tasks.contracts.evaluation import Champion
from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.recipe.registry import RegisterOptions
from layerwright.tasks.register.evidence import TAG
from layerwright.tasks.store.base import Store
from layerwright.tasks.tracking import connect, is_missing

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.tracking import MlflowClient

CHECKPOINT_TAGS = {  # the fields of a checkpoint, and the tags that hold them
    "uri": "checkpoint_uri",
    "sha256": "manifest_sha256",
    "bytes": "checkpoint_bytes",
    "base_sha256": "base_sha256",
    "plan_sha256": "plan_sha256",
}
_ADDRESS = re.compile(r"(?P<model>[^/:@]+)(@(?P<alias>[^/:@]+)|/(?P<version>\d+))?")


@dataclass(frozen=True)
class Address:
    """A model or version, as users write it: ``NAME``, ``NAME@alias`` or ``NAME/version``."""

    model: str
    alias: str | None = None
    version: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address; raise InputError if it has none of the three forms."""
        if match := _ADDRESS.fullmatch(text):
            return cls(**match.groupdict())
        raise InputError(
            f"{text!r} is not the address of a registered model",
            expected="NAME, NAME@alias or NAME/version",
        )

    def __str__(self) -> str:
        if self.version:
            return f"{self.model}/{self.version}"
        return f"{self.model}@{self.alias}" if self.alias else self.model


def _existing(get: Callable[..., Any], *name: str) -> Any:
    """What MLflow has under a name; None if it does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        return get(*name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def registered_model(client: MlflowClient, name: str) -> RegisteredModel | None:
    """The registered model; None if it does not exist."""
    return _existing(client.get_registered_model, name)


def named_model(client: MlflowClient, name: str) -> RegisteredModel:
    """The registered model; raise InputError if it does not exist."""
    if model := registered_model(client, name):
        return model
    raise InputError(
        f"{client.tracking_uri} has no model {name!r}",
        remedy="run `layerwright convert`, which registers accepted checkpoints",
    )


def pointed_at(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version that an alias points at; None if the model or alias does not exist."""
    model = registered_model(client, name)
    version = model.aliases.get(alias) if model else None
    return None if version is None else client.get_model_version(name, str(version))


def named_version(client: MlflowClient, address: Address) -> ModelVersion:
    """The version at an address, which must have an alias or a version.

    Raises:
        InputError: the model, alias or version does not exist.
    """
    model, version = named_model(client, address.model), address.version
    if address.alias is not None:
        version = model.aliases.get(address.alias)
        if version is None:
            raise InputError(
                f"{address.model!r} has no alias {address.alias!r}",
                expected=f"one of {', '.join(sorted(model.aliases)) or 'none'}",
            )
    if version is None:
        raise InputError(f"{str(address)!r} has no version", expected="NAME@alias or NAME/version")
    found = _existing(client.get_model_version, address.model, str(version))
    if found is None:
        raise InputError(f"{address.model!r} has no version {version}")
    return found


def tag(version: ModelVersion, name: str) -> str | None:
    """The value of one of Layerwright's tags; None if it is not set."""
    return version.tags.get(f"{TAG}{name}")


def set_tag(client: MlflowClient, version: ModelVersion, name: str, value: str) -> None:
    """Set one of Layerwright's tags."""
    client.set_model_version_tag(version.name, str(version.version), f"{TAG}{name}", value)


def missing_tags(version: ModelVersion) -> str:
    """The tags about its checkpoint that a version lacks, in one text."""
    return ", ".join(name for name in CHECKPOINT_TAGS.values() if tag(version, name) is None)


def checkpoint_of(version: ModelVersion) -> CheckpointRef:
    """The checkpoint of a version.

    Raises:
        StepError: tags are missing, because Layerwright did not make the version or its
            registration was interrupted.
    """
    if missing := missing_tags(version):
        raise StepError(f"version {version.version} of {version.name} lacks the tags {missing}")
    fields = {field: tag(version, name) for field, name in CHECKPOINT_TAGS.items()}
    return CheckpointRef.model_validate(fields)


def store_of(checkpoint: CheckpointRef) -> str:
    """The address of the store that holds a registered checkpoint."""
    return checkpoint.uri.rpartition("/trees/")[0]


def current_champion(
    options: RegisterOptions, *, tracking_uri: str, base_sha256: str, store: Store
) -> Champion | None:
    """The version that ``options.champion`` points at; None if there is none.

    A champion of another base is not measured: its tokenizer, and so its items, may differ.

    Args:
        tracking_uri: a missing SQLite file is not created.
        base_sha256: of the candidate's base.
    """
    if is_missing(tracking_uri):
        return None
    with connect(tracking_uri) as client:
        version = pointed_at(client, options.model_name, options.champion)
    if version is None:
        return None
    number = str(version.version)
    if missing := missing_tags(version):
        why = f"it lacks the tags {missing}"
    elif (checkpoint := checkpoint_of(version)).base_sha256 != base_sha256:
        why = f"its base is another one, {checkpoint.base_sha256}"
    elif not store.has_tree(checkpoint.sha256):
        why = f"the store does not have {checkpoint.uri}"
    else:
        return Champion(version=number, checkpoint=checkpoint)
    reason = f"the champion, version {number}, cannot be measured: {why}"
    return Champion(version=number, reason=reason)


def held_trees(tracking_uri: str) -> dict[str, str]:
    """Each tree that a registered version needs, by digest, with one such version.

    Args:
        tracking_uri: a missing SQLite file is not created.
    """
    held: dict[str, str] = {}
    if is_missing(tracking_uri):
        return held
    token: str | None = None
    with connect(tracking_uri) as client:
        while True:
            page = client.search_model_versions(max_results=1000, page_token=token)
            for version in page:
                for name in ("manifest_sha256", "served_sha256", "base_sha256"):
                    if sha256 := tag(version, name):
                        held.setdefault(sha256, f"{version.name} {version.version}")
            token = page.token
            if not token:
                return held
