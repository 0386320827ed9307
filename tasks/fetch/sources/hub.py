"""``hf:owner/name@revision``: a model or dataset repository of the Hugging Face Hub, through the
endpoint, token and cache of huggingface_hub (``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME``).
"""

import re
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub import errors as hub_errors

from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.fetch.sources.source import Source, Tick, one_line

_FORM = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)")
_NETWORK_ERRORS = (hub_errors.HTTPError, hub_errors.XetDownloadError, OSError)
_ABSENT = (hub_errors.RepositoryNotFoundError, hub_errors.RevisionNotFoundError)
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubSource(Source):
    """A repository at a revision; a branch or tag is resolved to its commit, and only once."""

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

    def _info(self, revision: str) -> Any:
        try:
            return HfApi().repo_info(
                self.repo, revision=revision, repo_type=self.repo_type, files_metadata=True
            )
        except (*_ABSENT, hub_errors.HFValidationError) as error:
            raise InputError(
                f"{self.text}: {one_line(error)}",
                expected=f"an existing {self.repo_type} repository and revision",
                remedy="set HF_TOKEN if the repository is private or gated",
            ) from error
        except _NETWORK_ERRORS as error:
            reason = f"the request to the Hub failed: {one_line(error)}"
            raise StepError(f"{self.text}: {reason}") from error

    def fetch(self, work: Path) -> Path:
        """Download the files in parallel into huggingface_hub's cache, then link to them."""
        names = self.choose(self.listing(work))
        try:
            # each pattern matches only its file
            patterns = [re.sub(r"([*?[])", r"[\1]", name) for name in names]
            options: Any = {"repo_type": self.repo_type, "allow_patterns": patterns}
            self._snapshot = Path(snapshot_download(self.repo, revision=self.commit, **options))
        except hub_errors.GatedRepoError as error:
            raise InputError(
                f"{self.text}: {one_line(error)}", remedy="request access and set HF_TOKEN"
            ) from error
        except _NETWORK_ERRORS as error:
            raise StepError(f"{self.text}: download failed: {one_line(error)}") from error
        return super().fetch(work)

    def take(self, name: str, target: Path, work: Path, tick: Tick) -> None:
        target.symlink_to((self._snapshot / name).resolve())
        tick(target.stat().st_size)
