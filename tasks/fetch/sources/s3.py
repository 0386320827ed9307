"""``s3://bucket/prefix``: objects in AWS S3, or in the server that ``AWS_ENDPOINT_URL`` names."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.fetch.sources.source import Source, Tick
from layerwright.tasks.store.s3 import S3_ERRORS, TRANSFER, s3_client

_ABSENT = ("NoSuchBucket", "AccessDenied", "404", "403")


class S3Source(Source):
    """The objects under a prefix, named by their key after the prefix."""

    form = "s3://bucket/prefix"

    @classmethod
    def claims(cls, text: str) -> bool:
        return text.startswith("s3:")

    def read_form(self) -> None:
        parsed = urlparse(self.text)
        if not parsed.netloc or not self.text.startswith("s3://"):
            raise InputError(f"{self.text!r} is not an S3 address", expected=self.form)
        self.bucket, self.prefix = parsed.netloc, parsed.path.strip("/")

    @cached_property
    def client(self) -> Any:
        return s3_client()

    @cached_property
    def objects(self) -> dict[str, dict]:
        """The server's entry (Key, ETag, Size) of each object, by name."""
        pages = self.client.get_paginator("list_objects_v2")
        try:
            entries = [
                entry
                for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix)
                for entry in page.get("Contents", [])
            ]
        except S3_ERRORS as error:
            code = getattr(error, "response", {}).get("Error", {}).get("Code")
            if code in _ABSENT:
                raise InputError(
                    f"{self.text} cannot be listed: {error}",
                    expected="an existing bucket that your credentials may list",
                ) from error
            raise StepError(f"{self.text} cannot be listed: {error}") from error
        if self.prefix and [e["Key"] for e in entries] == [self.prefix]:  # a single object
            return {self.prefix.rsplit("/", 1)[-1]: entries[0]}
        start = f"{self.prefix}/" if self.prefix else ""
        named = {e["Key"].removeprefix(start): e for e in entries if e["Key"].startswith(start)}
        return {name: e for name, e in named.items() if name and not name.endswith("/")}

    def listing(self, work: Path) -> dict[str, int]:
        if not self.objects:
            raise InputError(f"{self.text} holds no objects", expected="a prefix with objects")
        return {name: entry["Size"] for name, entry in self.objects.items()}

    def identity(self) -> str:
        """sha256 over name, ETag and size of the wanted objects."""
        chosen = self.choose(self.listing(Path()))
        entries = [(n, self.objects[n]["ETag"], self.objects[n]["Size"]) for n in chosen]
        return f"s3:{hashlib.sha256(json.dumps(entries).encode()).hexdigest()}"

    def take(self, name: str, target: Path, work: Path, tick: Tick) -> None:
        key = self.objects[name]["Key"]
        try:
            self.client.download_file(self.bucket, key, str(target), Callback=tick, Config=TRANSFER)
        except S3_ERRORS as error:
            raise StepError(f"s3://{self.bucket}/{key}: download failed: {error}") from error
