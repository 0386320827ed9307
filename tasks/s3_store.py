"""A store under an S3 prefix (boto3), and the client for others who read from S3."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import urlparse

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tasks.contracts import TreeRef
from tasks.errors import InputError, IntegrityError, StepError
from tasks.store import (
    MANIFEST,
    Entry,
    Store,
    build_manifest,
    parse_manifest,
    verify_file,
    write_atomically,
)

DELETED_AT_ONCE = 1000  # S3's own limit
S3_ERRORS = (ClientError, BotoCoreError, Boto3Error)  # for those who use s3_client()


class S3Store(Store):
    """A store under an S3 prefix; trees are downloaded to a local cache folder.

    Credentials, region and endpoint come from the usual AWS chain alone
    (``AWS_ENDPOINT_URL`` for servers other than AWS).
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
        try:
            return self.client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None
        except S3_ERRORS as error:
            raise StepError(f"{self.uri}/{key} cannot be read: {error}") from error

    def write(self, key: str, data: bytes) -> None:
        try:
            self.client.put_object(
                Bucket=self.bucket, Key=self._key(key), Body=data, ChecksumAlgorithm="SHA256"
            )
        except S3_ERRORS as error:
            raise StepError(f"{self.uri}/{key} cannot be written: {error}") from error

    def tree_uri(self, sha256: str) -> str:
        return f"{self.uri}/trees/{sha256}"

    def put_tree(self, folder: Path) -> TreeRef:
        (folder / MANIFEST).unlink(missing_ok=True)
        manifest = build_manifest(folder)
        sha256 = hashlib.sha256(manifest).hexdigest()
        files = json.loads(manifest)["files"]
        try:
            folder_key = f"trees/{sha256}/"
            present = {e.key.removeprefix(folder_key): e.bytes for e in self.entries(folder_key)}
            for entry in files:
                if present.get(entry["path"]) == entry["bytes"]:
                    continue  # an object is whole or not there: left by an interrupted upload
                self.client.upload_file(
                    str(folder / entry["path"]),
                    self.bucket,
                    self._key(f"trees/{sha256}/{entry['path']}"),
                    ExtraArgs={"ChecksumAlgorithm": "SHA256"},
                    Config=TransferConfig(max_concurrency=4),
                )
        except (*S3_ERRORS, OSError) as error:
            raise StepError(f"upload to {self.tree_uri(sha256)} failed: {error}") from error
        if MANIFEST not in present:
            self.write(f"trees/{sha256}/{MANIFEST}", manifest)
        shutil.rmtree(folder)
        size = sum(entry["bytes"] for entry in files)
        return TreeRef(uri=self.tree_uri(sha256), sha256=sha256, bytes=size)

    def entries(self, prefix: str) -> Iterator[Entry]:
        own = len(self._key(""))
        pages = self.client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.bucket, Prefix=self._key(prefix)):
            for entry in page.get("Contents", []):
                yield Entry(entry["Key"][own:], entry["Size"], entry["LastModified"])

    def remove(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), DELETED_AT_ONCE):
            batch = [{"Key": self._key(key)} for key in keys[start : start + DELETED_AT_ONCE]]
            try:
                answer = self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": batch})
            except S3_ERRORS as error:
                raise StepError(f"{self.uri}: objects cannot be removed: {error}") from error
            if refused := answer.get("Errors"):
                first = f"{refused[0]['Key']}: {refused[0]['Message']}"
                raise StepError(f"{self.uri}: {len(refused)} objects cannot be removed: {first}")

    def remove_unfinished(self, before: datetime, *, dry: bool = False) -> int:
        pages = self.client.get_paginator("list_multipart_uploads")
        old = [
            upload
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._key(""))
            for upload in page.get("Uploads", [])
            if upload["Initiated"] < before
        ]
        for upload in [] if dry else old:
            self.client.abort_multipart_upload(
                Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
        return len(old)

    def open_tree(self, sha256: str) -> Path:
        folder = self.cache / sha256
        if sha256 in self._opened:
            return folder
        data = self.read(f"trees/{sha256}/{MANIFEST}")
        if data is None:
            raise IntegrityError(f"{self.tree_uri(sha256)}: no such tree in this store")
        for entry in parse_manifest(data, sha256, self.tree_uri(sha256)):
            path = folder / entry["path"]
            try:
                verify_file(path, entry)  # kept from an earlier, perhaps interrupted, download
                continue
            except IntegrityError:
                path.parent.mkdir(parents=True, exist_ok=True)
            # a name of its own: another process may be opening the same tree
            partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
            try:
                self.client.download_file(
                    self.bucket, self._key(f"trees/{sha256}/{entry['path']}"), str(partial)
                )
            except S3_ERRORS as error:
                raise StepError(f"{self.tree_uri(sha256)}/{entry['path']}: {error}") from error
            try:
                verify_file(partial, entry)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        write_atomically(folder / MANIFEST, data)
        self._opened.add(sha256)
        return folder


def s3_client():  # type: ignore[no-untyped-def]
    """A boto3 S3 client from the usual chain, with few and bounded retries."""
    # a session of its own: the shared one is not thread-safe, and keeps the first credentials
    return boto3.Session().client(
        "s3",
        config=Config(retries={"max_attempts": 3, "mode": "standard"}, connect_timeout=10),
    )
