"""A store under an S3 prefix (boto3), and `s3_client` for other code that reads from S3."""

import functools
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import JSONFileLoader
from botocore.session import get_session
from s3transfer.exceptions import S3DownloadFailedError

from layerwright.tasks.contracts.references import TreeRef
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.errors import InputError, IntegrityError, StepError
from layerwright.tasks.progress import progress
from layerwright.tasks.store.base import Entry, Store, older
from layerwright.tasks.store.manifest import MANIFEST, TreeFile, parse_manifest, verify_file

DELETED_AT_ONCE = 1000  # S3's own limit
DIGEST = "sha256"  # key of the object metadata that holds the file's digest
PROGRESS_BAR_BYTES = 50 * 10**6  # smaller transfers show no progress bar
# what calls of the client can raise
S3_ERRORS = (ClientError, BotoCoreError, Boto3Error, S3DownloadFailedError)
TRANSFER = TransferConfig(max_concurrency=4, multipart_chunksize=16 * 2**20)  # 64 MB in memory

# botocore's service descriptions are megabytes of JSON, which every new session parses again
_DESCRIPTIONS = JSONFileLoader()
_DESCRIPTIONS.load_file = functools.cache(_DESCRIPTIONS.load_file)

Callback = Callable[[int], None]  # takes the number of bytes transferred since the last call


class S3Store(Store):
    """A store under an S3 prefix. Trees are downloaded to the cache folder.

    Credentials, region and endpoint (``AWS_ENDPOINT_URL``) come from the AWS configuration chain.
    """

    def __init__(self, uri: str, cache: Path) -> None:
        parsed = urlparse(uri)
        if parsed.scheme != "s3" or not parsed.netloc:
            raise InputError(f"{uri!r} is not an S3 address", expected="s3://bucket/prefix")
        self.uri = uri.rstrip("/")
        self.bucket, self.prefix = parsed.netloc, parsed.path.strip("/")
        self.cache = cache
        self.client = s3_client()
        self._opened: set[str] = set()

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def read(self, key: str) -> bytes | None:
        with _failures(f"{self.uri}/{key} cannot be read"):
            try:
                return self.client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"].read()
            except self.client.exceptions.NoSuchKey:
                return None

    def write(self, key: str, data: bytes) -> None:
        with _failures(f"{self.uri}/{key} cannot be written"):
            self.client.put_object(
                Bucket=self.bucket, Key=self._key(key), Body=data, ChecksumAlgorithm="SHA256"
            )

    def put_tree(self, folder: Path) -> TreeRef:
        manifest, sha256, files = self._manifest_of(folder)
        with _failures(f"upload to {self.tree_uri(sha256)} failed"):
            missing = [file for file in files if not self._holds(sha256, file)]
            with _bar("upload", missing) as tick:
                for file in missing:
                    path, key = str(folder / file.path), self._key(f"trees/{sha256}/{file.path}")
                    extra = {"ChecksumAlgorithm": "SHA256", "Metadata": {DIGEST: file.sha256}}
                    self.client.upload_file(
                        path, self.bucket, key, ExtraArgs=extra, Callback=tick, Config=TRANSFER
                    )
        self.write(f"trees/{sha256}/{MANIFEST}", manifest)
        shutil.rmtree(folder)
        return self._ref(sha256, files)

    def _holds(self, sha256: str, file: TreeFile) -> bool:
        """Whether the bucket has the file, judged by the object's size and its digest metadata.

        S3 stores an object completely or not at all.
        """
        key = self._key(f"trees/{sha256}/{file.path}")
        try:
            head = self.client.head_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] == "404":
                return False
            raise
        return (head["ContentLength"], head["Metadata"].get(DIGEST)) == (file.bytes, file.sha256)

    def entries(self, prefix: str) -> Iterator[Entry]:
        prefix_length = len(self._key(""))
        pages = self.client.get_paginator("list_objects_v2")
        with _failures(f"{self.uri} cannot be listed"):
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._key(prefix)):
                for entry in page.get("Contents", []):
                    yield Entry(entry["Key"][prefix_length:], entry["Size"], entry["LastModified"])

    def remove(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), DELETED_AT_ONCE):
            batch = [{"Key": self._key(key)} for key in keys[start : start + DELETED_AT_ONCE]]
            with _failures(f"{self.uri}: objects cannot be deleted"):
                response = self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": batch})
            if errors := response.get("Errors"):
                first = f"{errors[0]['Key']}: {errors[0]['Message']}"
                raise StepError(f"{self.uri}: {len(errors)} objects cannot be deleted: {first}")

    def remove_unfinished(self, before: datetime, *, dry: bool = False) -> int:
        pages = self.client.get_paginator("list_multipart_uploads")
        with _failures(f"{self.uri}: interrupted uploads cannot be deleted"):
            old = [
                {"Key": upload["Key"], "UploadId": upload["UploadId"]}
                for page in pages.paginate(Bucket=self.bucket, Prefix=self._key(""))
                for upload in page.get("Uploads", [])
                if upload["Initiated"] < before
            ]
            for upload in [] if dry else old:
                self.client.abort_multipart_upload(Bucket=self.bucket, **upload)
        partial = older(self.cache.rglob(".*.partial*"), before)
        for path in [] if dry else partial:
            path.unlink(missing_ok=True)
        return len(old) + len(partial)

    def open_tree(self, sha256: str) -> Path:
        folder = self.cache / sha256
        if sha256 in self._opened:
            return folder
        data = self.read(f"trees/{sha256}/{MANIFEST}")
        if data is None:
            raise IntegrityError(f"{self.tree_uri(sha256)}: the store has no such tree")
        files = parse_manifest(data, sha256, self.tree_uri(sha256))
        # keep the files of earlier downloads, interrupted ones included
        missing = [file for file in files if not _is_intact(folder / file.path, file)]
        with _bar("download", missing) as tick:
            for file in missing:
                self._download(sha256, file, folder / file.path, tick)
        with _failures(f"{folder / MANIFEST} cannot be written"):
            write_atomically(folder / MANIFEST, data)
        self._opened.add(sha256)
        return folder

    def _download(self, sha256: str, file: TreeFile, path: Path, tick: Callback) -> None:
        # a unique name, because another process may be downloading the same file
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
        where = f"{self.tree_uri(sha256)}/{file.path}"
        key = self._key(f"trees/{sha256}/{file.path}")
        try:
            with _failures(f"{where}: the download failed"):
                path.parent.mkdir(parents=True, exist_ok=True)
                self.client.download_file(
                    self.bucket, key, str(partial), Callback=tick, Config=TRANSFER
                )
                verify_file(partial, file)
                partial.replace(path)
        except IntegrityError as error:
            raise IntegrityError(
                f"{where}: the content differs from the manifest\n  to do: delete this object and "
                f"the tree's {MANIFEST}; the step that made the tree then runs again"
            ) from error
        finally:
            partial.unlink(missing_ok=True)


def _is_intact(path: Path, file: TreeFile) -> bool:
    try:
        verify_file(path, file)
    except IntegrityError:
        return False
    return True


@contextmanager
def _failures(problem: str) -> Iterator[None]:
    """Turn errors of S3 and of the disk into StepError."""
    try:
        yield
    except (*S3_ERRORS, OSError) as error:
        raise StepError(f"{problem}: {error}") from error


@contextmanager
def _bar(verb: str, files: Sequence[TreeFile]) -> Iterator[Callback]:
    """A progress bar over the bytes of files; hidden for small transfers."""
    total = sum(file.bytes for file in files)
    with progress() as bar:
        job = bar.add_task(f"{verb} (MB)", total=total / 10**6, visible=total >= PROGRESS_BAR_BYTES)
        yield lambda count: bar.advance(job, count / 10**6)


def s3_client() -> Any:  # boto3 makes the class at run time
    """A boto3 S3 client configured by the AWS chain, with at most three attempts per call."""
    # not boto3's default session: it is not thread-safe and keeps the first credentials
    session = get_session()
    session.get_component("data_loader").file_loader = _DESCRIPTIONS
    config = Config(retries={"max_attempts": 3, "mode": "standard"}, connect_timeout=10)
    return boto3.Session(botocore_session=session).client("s3", config=config)
