"""Source, the base class: it selects files by glob and fetches each file completely or not."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.progress import progress

Purpose = Literal["model", "text"]
Refine = Callable[[list[str]], list[str]]
Tick = Callable[[int], None]  # called with the number of bytes that arrived since the last call

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(eq=False)
class Source(ABC):
    """A collection of files; the wanted files are those that match ``patterns``."""

    form: ClassVar[str]  # how a recipe writes this kind of source, for error messages
    purposes: ClassVar[tuple[Purpose, ...]] = ("model", "text")  # what this kind of source can hold

    text: str  # the source as the recipe writes it
    data_root: str | None  # folder that relative local paths start from; the current folder if None
    patterns: tuple[str, ...]  # globs over paths inside the source; ``*`` also matches ``/``
    require: tuple[str, ...]  # at least one wanted file must match one of these globs
    purpose: Purpose
    refine: Refine = list  # selects the needed files among those that match; may raise InputError

    def __post_init__(self) -> None:
        if self.purpose not in self.purposes:
            expected = f"a source of a {self.purpose}; not {self.form}"
            raise InputError(f"{self.text} holds no {self.purpose}", expected=expected)
        self.read_form()

    @classmethod
    @abstractmethod
    def claims(cls, text: str) -> bool:
        """Return whether ``text`` has the prefix of this kind."""

    @abstractmethod
    def read_form(self) -> None:
        """Parse ``self.text``; InputError if it has the prefix of this kind, but not its form."""

    @abstractmethod
    def identity(self) -> str:
        """A string for the cache key of the fetch: the same identity means the same bytes."""

    @abstractmethod
    def listing(self, work: Path) -> dict[str, int]:
        """Size in bytes of every file of the source, wanted or not, by its path in the source;
        InputError if the source does not exist.
        """

    @abstractmethod
    def take(self, name: str, target: Path, work: Path, tick: Tick) -> None:
        """Write a file to ``target``, a temporary path in an existing folder."""

    def size_bytes(self) -> int | None:
        """Bytes that a fetch will transfer, or None if unknown. Transfers no file. InputError if
        the source does not exist, or has none of the wanted files.
        """
        sizes = self.listing(Path())
        return sum(sizes[name] for name in self.choose(sizes))

    def choose(self, names: Iterable[str]) -> list[str]:
        """Return the wanted files, sorted by path; InputError if no file is wanted, or a path would
        leave the target folder.
        """
        names = sorted(names)
        wanted = [name for name in names if matches(name, self.patterns)]
        if not any(matches(name, self.require) for name in wanted):
            self._refuse(names)
        wanted = self.refine(wanted)
        for name in wanted:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name:
                raise InputError(
                    f"{self.text} holds {name!r}, a path that would leave its folder",
                    expected="relative paths without ..",
                )
        return wanted

    def _refuse(self, names: list[str]) -> None:
        expected = f"a file like {', '.join(self.require)}"
        pickles = [name for name in names if matches(name, PICKLES)]
        if self.purpose == "model" and pickles:
            raise InputError(
                f"{self.text} stores its weights only as pickles ({pickles[0]}), which can run "
                "code when they are read",
                expected=expected,
                remedy="if you trust them, convert them to safetensors",
            )
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "no files"
        what = f"{self.text} has none of the wanted files; it has {shown}"
        raise InputError(what, expected=expected)

    def fetch(self, work: Path) -> Path:
        """Fetch the wanted files into a folder below ``work``, which survives a kill.

        Complete files in it are not fetched again. Returns the folder with exactly the wanted
        files, each at its path in the source. They may be symlinks to files of the user.
        InputError if the source does not exist, or has none of the wanted files. StepError if a
        file arrived incomplete.
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
                if (arrived := partial.stat().st_size) != sizes[name]:
                    wanted = f"{name} should have {sizes[name]} bytes"
                    raise StepError(f"{self.text}: {wanted}, but {arrived} arrived")
                partial.replace(path)
        return folder


def names_in(folder: Path) -> list[str]:
    """Return the paths of the files that ``fetch`` put into a folder, sorted."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(n.as_posix() for n in names if not n.name.endswith(".partial"))


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a path matches any of the globs; ``*`` also matches ``/``."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def accepted_forms(kinds: Iterable[type[Source]], purpose: Purpose) -> str:
    """Return the forms of the sources that can hold ``purpose``, for error messages."""
    return " or ".join(kind.form for kind in kinds if purpose in kind.purposes)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
