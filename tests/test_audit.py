"""The audit of what is installed, with advisories from a server of this test."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from layerwright.infra.audit import CONSTRAINTS, Vulnerability, looked_up, pinned, unpinned

ADVISORY = {
    "id": "OSV-2026-1",
    "affected": [
        {
            "package": {"name": "demo-package", "ecosystem": "PyPI"},
            "ranges": [
                {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.5.0"}]},
            ],
        }
    ],
}


class Osv(BaseHTTPRequestHandler):
    """One package has a vulnerability."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        has_one = asked["package"]["name"] == "demo-package" and asked["version"] == "1.4.0"
        answer = json.dumps({"vulns": [ADVISORY]} if has_one else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def osv() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Osv)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_known_vulnerability_is_found(osv: str, tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("demo-package==1.4.0\nother==2.0\n")
    found, unanswered = looked_up(constraints, osv)
    assert found == [Vulnerability("demo-package", "1.4.0", "OSV-2026-1", ("1.5.0",))]
    assert unanswered == []
    constraints.write_text("demo-package==1.5.0\nother==2.0\n")
    assert looked_up(constraints, osv) == ([], [])


def test_without_advisories_nothing_passes_as_looked_up(tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("demo-package==1.4.0\n")
    nobody = "http://127.0.0.1:9/v1/query"
    assert looked_up(constraints, nobody) == ([], ["demo-package"])


def test_what_is_installed_and_not_pinned() -> None:
    pins = {"given": "1.0", "other": "2.0"}
    assert unpinned(pins, {"given": "1.0", "layerwright": "0.1", "pip": "30"}) == []
    assert unpinned(pins, {"given": "1.1", "stranger": "3"}) == [
        "given 1.1 is installed, pinned is 1.0",
        "stranger 3 is installed, pinned is nothing",
    ]


def test_the_constraints_pin_each_package_once() -> None:
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if line]
    assert len(pinned(CONSTRAINTS)) == len(lines)
    assert all(pinned(CONSTRAINTS).values())
