"""``hf:owner/name@revision``: a model or dataset repository of the Hugging Face Hub.

Endpoint, token and cache folder are those of huggingface_hub (``HF_ENDPOINT``, ``HF_TOKEN``,
``HF_HOME``), so what the user has downloaded already is not downloaded again.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)

from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.fetch.sources.source import Source, Tick

_FORM = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)")
_UNREACHED = (HTTPError, XetDownloadError, OSError)
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubSource(Source):
    """A repository at a revision; a branch or tag is resolved to its commit once."""

    form = "hf:owner/name@revision"

    @classmethod
    def claims(cls, text: str) -> bool:
        return text.startswith("hf:")

    def read_form(self) -> None:
        parts = _FORM.fullmatch(self.text)
        if parts is None:
            raise InputError(
                f"{self.text!r} does not name a repository and its revision", expected=self.form
            )
        self.repo, self.revision = parts["repo"], parts["revision"]
        self.repo_type = "model" if self.purpose == "model" else "dataset"

    @cached_property
    def commit(self) -> str:
        """The commit that the revision names."""
        if _COMMIT.fullmatch(self.revision):
            return self.revision
        return self._info(self.revision).sha

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file at the commit."""
        return {file.rfilename: file.size for file in self._info(self.commit).siblings}

    def identity(self) -> str:
        return f"hf:{self.repo_type}:{self.repo}@{self.commit}"

    def listing(self, work: Path) -> dict[str, int]:
        return self.sizes

    def _info(self, revision: str):  # type: ignore[no-untyped-def]
        try:
            return HfApi().repo_info(
                self.repo, revision=revision, repo_type=self.repo_type, files_metadata=True
            )
        except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
            raise InputError(
                f"{self.text}: {self._said(error)}",
                expected=f"a {self.repo_type} repository and a revision that exist",
                remedy="a private or gated repository needs HF_TOKEN",
            ) from error
        except _UNREACHED as error:
            raise StepError(f"{self.text}: the Hub cannot be asked: {self._said(error)}") from error

    @staticmethod
    def _said(error: Exception) -> str:
        return " ".join(str(error).split())[:300]

    def fetch(self, work: Path) -> Path:
        """As for every source; files are downloaded in parallel into huggingface_hub's cache."""
        names = self.choose(self.listing(work))
        try:
            self._snapshot = Path(
                snapshot_download(
                    self.repo,
                    revision=self.commit,
                    repo_type=self.repo_type,
                    allow_patterns=[_literal(name) for name in names],
                )
            )
        except GatedRepoError as error:
            raise InputError(
                f"{self.text}: {self._said(error)}", remedy="ask for access and set HF_TOKEN"
            ) from error
        except _UNREACHED as error:
            raise StepError(f"{self.text} did not arrive: {self._said(error)}") from error
        return super().fetch(work)

    def take(self, name: str, target: Path, work: Path, tick: Tick) -> None:
        target.symlink_to((self._snapshot / name).resolve())
        tick(target.stat().st_size)


def _literal(name: str) -> str:
    """A glob that matches this name alone."""
    return re.sub(r"([*?[])", r"[\1]", name)
