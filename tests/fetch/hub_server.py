"""A server that speaks as much of the Hugging Face Hub's protocol as its client uses to download.

The real Hub is not reachable from tests; the real client is what is tested.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Repositories by ``models/owner/name`` or ``datasets/owner/name``: branch, files.

    ``sent`` lists the files whose content was asked for; ``cut`` names one of which only half
    is sent before the line drops.
    """

    def __init__(self, repositories: dict[str, dict[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.sent: list[str] = []
        self.cut: str | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        parts = unquote(urlparse(self.path).path).strip("/").split("/")
        if parts[0] == "api":
            return self.api(parts[1:])
        kind = parts.pop(0) if parts[0] == "datasets" else "models"
        files = self.server.repositories.get("/".join([kind, *parts[:2]]))
        name = "/".join(parts[4:])
        if files is None or parts[2] != "resolve" or name not in files:
            return self.refuse("EntryNotFound")
        data = files[name]
        headers = {
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        start = 0
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes="):
            start = int(asked[6:].split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.reply(206 if start else 200, data[start:], headers, with_body, name)

    def api(self, parts: list[str]) -> None:
        files = self.server.repositories.get("/".join(parts[:3]))
        if files is None:
            return self.refuse("RepoNotFound")
        if parts[3:4] == ["revision"] and parts[4] not in ("main", COMMIT):
            return self.refuse("RevisionNotFound")
        if parts[3:4] == ["tree"]:
            listed: object = [
                {"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
                for n, d in files.items()
            ]
        else:
            siblings = [{"rfilename": n, "size": len(d)} for n, d in files.items()]
            listed = {"id": "/".join(parts[1:3]), "sha": COMMIT, "siblings": siblings}
        self.reply(200, json.dumps(listed).encode(), {"Content-Type": "application/json"}, True)

    def refuse(self, code: str) -> None:
        self.reply(404, b"", {"X-Error-Code": code, "X-Error-Message": code}, True)

    def reply(
        self, status: int, data: bytes, headers: dict[str, str], body: bool, name: str = ""
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not body:
            return
        if name:
            self.server.sent.append(name)
        if name and name == self.server.cut:
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
            return
        self.wfile.write(data)


@contextmanager
def hub_server(repositories: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    """Run a hub on a free port; it ends with the block."""
    hub = Hub(repositories)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
