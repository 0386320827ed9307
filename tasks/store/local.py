"""A store in a folder of this machine."""

import shutil
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from layerwright.tasks.contracts.references import TreeRef
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.errors import IntegrityError
from layerwright.tasks.store.base import Entry, Store, older
from layerwright.tasks.store.manifest import MANIFEST, parse_manifest, verify_file


class LocalStore(Store):
    """A store in a folder of this machine."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).resolve()
        self.uri = self.root.as_uri()
        self.cache = self.root
        self._verified: dict[str, tuple[tuple[str, int, int], ...]] = {}

    def read(self, key: str) -> bytes | None:
        try:
            return (self.root / key).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, key: str, data: bytes) -> None:
        write_atomically(self.root / key, data)

    def entries(self, prefix: str) -> Iterator[Entry]:
        for path in sorted((self.root / prefix).rglob("*")):
            if path.is_file() and ".partial" not in path.relative_to(self.root).as_posix():
                status = path.stat()
                modified = datetime.fromtimestamp(status.st_mtime, UTC)
                yield Entry(path.relative_to(self.root).as_posix(), status.st_size, modified)

    def remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            path = self.root / key
            path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self.root or any(folder.iterdir()):
                    break
                folder.rmdir()

    def remove_unfinished(self, before: datetime, *, dry: bool = False) -> int:
        partial = (*self.root.glob("*/.*.partial"), *self.root.glob("*/*/.*.partial"))
        old = older(partial, before)
        for path in [] if dry else old:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return len(old)

    def put_tree(self, folder: Path) -> TreeRef:
        manifest, sha256, files = self._manifest_of(folder)
        target = self.root / "trees" / sha256
        try:
            self.open_tree(sha256)
            shutil.rmtree(folder)
        except IntegrityError:  # missing or damaged: replace it by the new folder
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{sha256}.{uuid.uuid4().hex[:8]}.partial")
            shutil.move(folder, partial)
            write_atomically(partial / MANIFEST, manifest)
            if target.exists():
                shutil.rmtree(target)
            partial.rename(target)
        return self._ref(sha256, files)

    def open_tree(self, sha256: str) -> Path:
        folder = self.root / "trees" / sha256
        data = self.read(f"trees/{sha256}/{MANIFEST}")
        if data is None:
            raise IntegrityError(f"{folder}: the store has no such tree")
        files = parse_manifest(data, sha256, str(folder))
        # hash the files again only if one changed since this process last opened the tree
        stamp = tuple(
            (file.path, s.st_size, s.st_mtime_ns)
            for file in files
            if (folder / file.path).is_file() and (s := (folder / file.path).stat())
        )
        if self._verified.get(sha256) != stamp or len(stamp) != len(files):
            for file in files:
                verify_file(folder / file.path, file)
            self._verified[sha256] = stamp
        return folder
