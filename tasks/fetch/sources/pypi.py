"""``pypi:dist==version[/path]``: files inside a wheel, which the user's pip finds and downloads.
Only wheels are accepted, and nothing is installed, so no code of the package runs.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from functools import cached_property
from pathlib import Path
from urllib.parse import urlparse

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.fetch.sources.source import Source, Tick, matches

_FORM = re.compile(
    r"pypi:(?P<dist>[A-Za-z0-9][\w.-]*)==(?P<version>[A-Za-z0-9.!+_-]+)(?:/(?P<path>.+))?"
)
_ALONE = ("--no-deps", "--only-binary", ":all:", "--ignore-requires-python")
_BLOCK_BYTES = 1 << 20


class PypiSource(Source):
    """The members of a wheel; ``path`` is a file, a folder or a glob inside it."""

    form = "pypi:dist==version[/path]"

    @classmethod
    def claims(cls, text: str) -> bool:
        return text.startswith("pypi:")

    def read_form(self) -> None:
        parts = _FORM.fullmatch(self.text)
        try:
            if parts is None:
                raise InvalidVersion(self.text)
            self.version = str(Version(parts["version"]))
        except InvalidVersion as error:
            raise InputError(
                f"{self.text!r} does not pin a version of a distribution", expected=self.form
            ) from error
        self.dist = canonicalize_name(parts["dist"])
        self.path = (parts["path"] or "").strip("/")
        self.requirement = f"{self.dist}=={self.version}"

    def identity(self) -> str:
        """The distribution and version: an index never changes the files of a version."""
        return f"pypi:{self.requirement}" + (f"/{self.path}" if self.path else "")

    def size_bytes(self) -> int | None:
        """Size of the wheel that pip would download."""
        report = self._pip(
            "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-", echo=False
        )
        url = json.loads(report)["install"][0]["download_info"]["url"]
        try:
            if url.startswith("file:"):
                return Path(urllib.request.url2pathname(urlparse(url).path)).stat().st_size
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=10) as reply:
                return int(reply.headers["Content-Length"])
        except (OSError, TypeError, ValueError):
            return None  # pip may still succeed, with its own credentials or proxy

    def _pip(self, command: str, *options: str, echo: bool) -> str:
        """Run a pip command on this wheel without dependencies; return its stdout. With ``echo``,
        pip's progress goes to stderr.
        """
        result = subprocess.run(
            [sys.executable, "-m", "pip", command, *_ALONE, *options, self.requirement],
            stdin=subprocess.DEVNULL,
            stdout=sys.__stderr__ if echo else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if result.returncode == 0:
            return result.stdout or ""
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        reason = " ".join(errors[-2:]) or result.stderr.strip()[-300:]
        if "No matching distribution" in result.stderr:
            raise InputError(
                f"{self.text}: the package index has no wheel of {self.requirement}: {reason}",
                expected="a distribution and version with a wheel in the index",
                remedy=f"`pip index versions {self.dist}` lists the versions",
            )
        raise StepError(f"{self.text}: pip could not download {self.requirement}: {reason}")

    def listing(self, work: Path) -> dict[str, int]:
        self._archive = zipfile.ZipFile(self._wheel(work))
        return {name: self.members[name].file_size for name in self.members}

    def _wheel(self, work: Path) -> Path:
        """Download the wheel into ``work``, only once and atomically."""
        kept = work / "wheel"
        if not kept.is_dir():
            for partial in work.glob("wheel.*.partial"):  # left by an attempt that was killed
                shutil.rmtree(partial)
            # a unique name, because the pip of that attempt may still be running
            partial = Path(tempfile.mkdtemp(prefix="wheel.", suffix=".partial", dir=work))
            quiet = () if sys.stderr.isatty() else ("--quiet",)
            self._pip("download", "--dest", str(partial), *quiet, echo=True)
            partial.replace(kept)
        return next(kept.glob("*.whl"))

    @cached_property
    def members(self) -> dict[str, zipfile.ZipInfo]:
        """The files that ``path`` selects, by their path relative to its glob-free folder."""
        every = {m.filename: m for m in self._archive.infolist() if not m.is_dir()}
        if not self.path:
            return every
        if self.path in every:
            return {self.path.rsplit("/", 1)[-1]: every[self.path]}
        fixed, *glob = re.split(r"[*?[]", self.path, maxsplit=1)
        start = f"{fixed.rpartition('/')[0] if glob else fixed}/"
        chosen = (n for n in every if (matches(n, [self.path]) if glob else n.startswith(start)))
        inside = {n.removeprefix(start): every[n] for n in chosen}
        if not inside:
            raise InputError(
                f"{self.text}: the wheel has nothing at {self.path}",
                expected=f"one of {', '.join(sorted({n.split('/')[0] for n in every}))}, "
                "or a path below it",
            )
        return inside

    def take(self, name: str, target: Path, work: Path, tick: Tick) -> None:
        try:
            with self._archive.open(self.members[name]) as member, target.open("wb") as file:
                while block := member.read(_BLOCK_BYTES):
                    file.write(block)
                    tick(len(block))
        except (zipfile.BadZipFile, OSError) as error:
            raise StepError(f"{self.text}: {name} cannot be unpacked: {error}") from error
