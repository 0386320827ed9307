"""Open the store at an address."""

from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from layerwright.tasks.store.base import Store
from layerwright.tasks.store.local import LocalStore


def open_store(uri: str | Path, cache: Path) -> Store:
    """The store at ``s3://bucket/prefix``, a ``file://`` URI or a folder.

    Args:
        cache: local folder for trees that are read from a remote store.
    """
    text = str(uri)
    if text.startswith("s3://"):
        from layerwright.tasks.store.s3 import S3Store  # here, because boto3 is slow to import

        return S3Store(text, cache)
    if text.startswith("file://"):
        return LocalStore(url2pathname(urlparse(text).path))
    return LocalStore(text)
