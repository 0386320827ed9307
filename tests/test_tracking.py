"""Live metrics arrive in MLflow, and a training does not care whether they do."""

import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from layerwright.tasks import tracking
from layerwright.tasks.tracking import Tracking, connect, experiment_id, live_metrics


@pytest.fixture
def where(tmp_path, empty_database):
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    return Tracking(uri=uri, run_id="tiny-1", step="finetune", key="k1")


def runs(where):
    with connect(where.uri) as client:
        return client.search_runs([experiment_id(client)])


def history(where, run, name):
    with connect(where.uri) as client:
        return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]


def test_every_metric_arrives_in_a_run_named_by_run_and_step(where):
    with live_metrics(where, print) as sink:
        for step in range(1, 700):
            sink(step, {"loss": 1 / step, "validation.nll": 2.0})
    (run,) = runs(where)
    assert run.info.run_name == "tiny-1 finetune"
    assert run.info.status == "FINISHED"
    tags = {name: run.data.tags[f"layerwright.{name}"] for name in ("run_id", "step", "key")}
    assert tags == {"run_id": "tiny-1", "step": "finetune", "key": "k1"}
    assert history(where, run, "loss") == [(step, 1 / step) for step in range(1, 700)]
    assert len(history(where, run, "validation.nll")) == 699


def test_metrics_are_there_while_the_training_runs(where, monkeypatch):
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 0.05)
    sent = threading.Event()
    original = tracking._Sender._send

    def send(self, last):
        original(self, last)
        if self.run and not self.waiting and not last:
            sent.set()

    monkeypatch.setattr(tracking._Sender, "_send", send)
    with live_metrics(where, print) as sink:
        sink(1, {"loss": 3.0})
        assert sent.wait(60)
        sent.clear()
        assert sent.wait(60)  # a whole round after the metric was put in
        (run,) = runs(where)
        assert run.info.status == "RUNNING"
        assert history(where, run, "loss") == [(1, 3.0)]


def test_a_training_that_goes_on_goes_on_in_its_run(where):
    def killed():
        with live_metrics(where, print) as sink:
            sink(1, {"loss": 3.0})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    (run,) = runs(where)
    assert run.info.status == "FAILED"
    with live_metrics(where, print) as sink:
        sink(2, {"loss": 2.0})
    (again,) = runs(where)
    assert again.info.run_id == run.info.run_id
    assert again.info.status == "FINISHED"
    assert history(where, again, "loss") == [(1, 3.0), (2, 2.0)]
    with live_metrics(where.model_copy(update={"key": "k2"}), print) as sink:
        sink(1, {"loss": 9.0})
    assert len(runs(where)) == 2


class Refusing(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503)
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


def test_a_server_that_refuses_is_told_once_and_the_training_goes_on(monkeypatch):
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.05)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log = []
    uri = f"http://127.0.0.1:{server.server_port}"
    there = Tracking(uri=uri, run_id="tiny-1", step="finetune", key="k")
    with live_metrics(there, log.append) as sink:
        for step in range(50):
            sink(step, {"loss": 1.0})
    server.shutdown()
    assert len(log) == 1
    assert f"MLflow at {uri} does not accept metrics" in log[0]
    assert "finetune continues without" in log[0]


def test_nowhere_is_a_sink_too():
    with live_metrics(None, print) as sink:
        sink(1, {"loss": 1.0})
