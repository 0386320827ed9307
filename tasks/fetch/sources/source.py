"""What all kinds of source share: choosing files by glob, and taking them whole or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.progress import progress

Purpose = Literal["model", "text"]
Refine = Callable[[list[str]], list[str]]
Tick = Callable[[int], None]  # how many more bytes have arrived

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class Source(ABC):
    """A place with files, of which those that match ``patterns`` are wanted.

    Attributes:
        form: how a recipe writes this kind of source, for messages.
        text: the source as the recipe has it.
        patterns: globs over paths inside the source; ``*`` also matches ``/``.
        require: globs of which one must match a wanted file at least.
        refine: takes the names that match and keeps those it needs; may raise InputError.
    """

    form: ClassVar[str]
    purposes: ClassVar[tuple[Purpose, ...]] = ("model", "text")

    def __init__(
        self,
        text: str,
        data_root: str | None,
        patterns: tuple[str, ...],
        require: tuple[str, ...],
        purpose: Purpose,
        refine: Refine = list,
    ) -> None:
        self.text, self.data_root, self.purpose = text, data_root, purpose
        self.patterns, self.require, self.refine = patterns, require, refine
        if purpose not in self.purposes:
            raise InputError(
                f"{text} holds no {purpose}", expected=f"a source of a {purpose}, not {self.form}"
            )
        self.read_form()

    @classmethod
    @abstractmethod
    def claims(cls, text: str) -> bool:
        """Whether ``text`` begins like a source of this kind."""

    @abstractmethod
    def read_form(self) -> None:
        """Take ``self.text`` apart.

        Raises:
            InputError: it begins like this kind, but is not of its form.
        """

    @abstractmethod
    def identity(self) -> str:
        """What the result is cached by: the same identity means the same bytes."""

    @abstractmethod
    def listing(self, work: Path) -> dict[str, int]:
        """Size in bytes of every file of the source, wanted or not, by path inside it.

        Raises:
            InputError: there is no such source.
        """

    @abstractmethod
    def take(self, name: str, target: Path, work: Path, tick: Tick) -> None:
        """Put one file at ``target``, a temporary name in a folder that exists."""

    def size_bytes(self) -> int | None:
        """Bytes that fetching will transfer, None if nobody can tell; nothing is transferred.

        Raises:
            InputError: there is no such source, or it has none of the wanted files.
        """
        sizes = self.listing(Path())
        return sum(sizes[name] for name in self.choose(sizes))

    def choose(self, names: Iterable[str]) -> list[str]:
        """The wanted files, sorted by path.

        Raises:
            InputError: there is none, or one would be written outside its folder.
        """
        names = sorted(names)
        wanted = [name for name in names if matches(name, self.patterns)]
        if not any(matches(name, self.require) for name in wanted):
            self._refuse(names)
        wanted = self.refine(wanted)
        for name in wanted:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name:
                raise InputError(f"{self.text} holds {name!r}, which would leave its folder")
        return wanted

    def _refuse(self, names: list[str]) -> None:
        expected = f"a file like {', '.join(self.require)}"
        pickles = [name for name in names if matches(name, PICKLES)]
        if self.purpose == "model" and pickles:
            raise InputError(
                f"{self.text} has its weights as pickles alone ({pickles[0]}), which run code of "
                "their own when they are read",
                expected=expected,
                remedy="convert them to safetensors where you trust them",
            )
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise InputError(
            f"{self.text} has none of the wanted files; it has {shown or 'no files'}",
            expected=expected,
        )

    def fetch(self, work: Path) -> Path:
        """Bring the wanted files into a folder of their own.

        Args:
            work: a folder that survives a kill; files that arrived whole are not taken again.

        Returns:
            The folder with exactly the wanted files, each at its path inside the source. They
            may be links to files that are not ours.

        Raises:
            InputError: no such source or no such files.
            StepError: a file did not arrive whole.
        """
        work.mkdir(parents=True, exist_ok=True)
        sizes = self.listing(work)
        names = self.choose(sizes)
        folder = work / "files"
        with progress() as bar:
            total = sum(sizes[name] for name in names)
            job = bar.add_task("fetch (MB)", total=max(1, total // 10**6))
            for name in names:
                path = folder / name
                bar.update(job, note=name)
                if path.is_file() and path.stat().st_size == sizes[name]:
                    bar.advance(job, sizes[name] / 10**6)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_name(f".{path.name}.partial")
                partial.unlink(missing_ok=True)
                self.take(name, partial, work, lambda count: bar.advance(job, count / 10**6))
                if partial.stat().st_size != sizes[name]:
                    raise StepError(
                        f"{self.text}: {name} should have {sizes[name]} bytes, "
                        f"but {partial.stat().st_size} arrived"
                    )
                partial.replace(path)
        return folder


def names_in(folder: Path) -> list[str]:
    """The files that ``fetch`` put into a folder, sorted by path."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(n.as_posix() for n in names if not n.name.endswith(".partial"))


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a path matches one of the globs; ``*`` also matches ``/``."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def accepted_forms(kinds: Iterable[type[Source]], purpose: Purpose) -> str:
    """How sources are written, for messages."""
    return " or ".join(kind.form for kind in kinds if purpose in kind.purposes)
