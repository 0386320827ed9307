"""``local:PATH`` or a plain path: a folder or a single file on this machine."""

import hashlib
import json
import os
import re
from pathlib import Path

from layerwright.tasks.disk import sha256_file
from layerwright.tasks.errors import InputError
from layerwright.tasks.fetch.sources.source import Source, Tick


class LocalSource(Source):
    """The files below a folder, or a single file. Names that begin with a dot are skipped."""

    form = "local:PATH"

    @classmethod
    def claims(cls, text: str) -> bool:
        # any other scheme is a misspelling, not a path
        return text.startswith("local:") or not re.match(r"[A-Za-z0-9+.-]+:", text)

    def read_form(self) -> None:
        path = self.text.removeprefix("local:")
        if not path:
            raise InputError(f"{self.text!r} has no path", expected=self.form)
        try:
            self.path = Path(self.data_root or ".") / Path(path).expanduser()
        except RuntimeError as error:  # ~user, for a user that does not exist
            raise InputError(
                f"{self.text}: {error}", expected="an existing file or folder"
            ) from error

    def listing(self, work: Path) -> dict[str, int]:
        if not os.path.exists(self.path):  # also False if the system rejects the name
            raise InputError(
                f"{self.text}: {self.path} does not exist",
                expected="an existing file or folder; relative paths start at data_root",
                remedy="correct the source, or data_root (--set data_root=DIR)",
            )
        return {name: path.stat().st_size for name, path in self._files().items()}

    def _files(self) -> dict[str, Path]:
        if self.path.is_file():
            return {self.path.name: self.path}
        paths = ((path.relative_to(self.path), path) for path in self.path.rglob("*"))
        return {
            name.as_posix(): path
            for name, path in paths
            if path.is_file() and not any(part.startswith(".") for part in name.parts)
        }

    def identity(self) -> str:
        """sha256 over the relative path, size and sha256 of the wanted files."""
        chosen = self.choose(self.listing(Path()))
        files = self._files()
        entries = [(name, files[name].stat().st_size, sha256_file(files[name])) for name in chosen]
        return f"local:{hashlib.sha256(json.dumps(entries).encode()).hexdigest()}"

    def take(self, name: str, target: Path, work: Path, tick: Tick) -> None:
        # a link, because the fetch step copies the files that it keeps
        target.symlink_to(self._files()[name].resolve())
        tick(target.stat().st_size)
