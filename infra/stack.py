"""Run the production stack on one machine, on free ports of the loopback interface.

    python -m layerwright.infra.stack up [--folder DIR] [--part prefect --part workers ...]
    python -m layerwright.infra.stack down [--folder DIR]

The parts are PostgreSQL and Redis (Debian's packages), a Prefect server and an MLflow server with
their data in PostgreSQL, locks in Redis, SeaweedFS as S3, and one worker per pool. Every server
needs a password. Clients read their settings with ``set -a; . DIR/stack.env``. DIR/processes.json
records the started processes; `down` stops only those.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from layerwright.infra.processes import Processes, StackError, free_ports, program, write_secret
from layerwright.infra.seaweed import Identity, read_identities, server_command, write_identities
from layerwright.tasks.home import Home

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(".layerwright-stack")
PARTS = ("postgres", "redis", "s3", "prefect", "mlflow", "workers")
WORKERS = ("cpu", "gpu")
PREFECT = (sys.executable, "-m", "prefect")
BUCKET = "layerwright"
ACCOUNT = "layerwright"  # the user name of all clients in Prefect and MLflow
MLFLOW_USERS = """\
[mlflow]
default_permission = READ
database_uri = {users}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""
LEASES = "prefect.server.concurrency.lease_storage.filesystem"
# variables that the stack's processes do not inherit, so that they use only the stack's servers
STRIPPED_PREFIXES = ("DO_NOT_TRACK", "PREFECT_", "MLFLOW_", "AWS_", "LAYERWRIGHT_")

app = typer.Typer(add_completion=False, no_args_is_help=True)
Folder = Annotated[Path, typer.Option(help="Folder for data, logs and the process record.")]


class Stack:
    """The stack in one folder. Each `start_...` returns the variables that clients need."""

    def __init__(self, folder: Path, source: Path = ROOT) -> None:
        self.folder, self.source = folder.resolve(), source
        self.processes = Processes(self.folder)
        self.ports: dict[str, int] = {}
        self.home = Home(self.folder / "home")
        self.environment = {
            "DO_NOT_TRACK": "1",
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "PREFECT_LOGGING_EXTRA_LOGGERS": "layerwright",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_METRICS_ENABLED": "true",
            # on disk: with leases in memory, a restart fails all steps that hold a slot
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
            "PREFECT_CLIENT_MAX_RETRIES": "7",  # waits four minutes for a restarting server
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # a full store was retried for minutes
            "LAYERWRIGHT_HOME": str(self.home),
            "LAYERWRIGHT_STORE": str(self.home.store),
        }

    @property
    def inherited(self) -> dict[str, str]:
        """The environment of the stack's processes: without other servers' settings."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(STRIPPED_PREFIXES)}
        return kept | {"PYTHONPATH": str(self.source)} | self.environment

    @contextlib.contextmanager
    def client(self) -> Iterator[None]:
        """A context in which this process is a client of the stack."""
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

        before = dict(os.environ)
        os.environ.update(self.environment)
        settings = {s: self.environment[s.name] for s in (PREFECT_API_URL, PREFECT_API_AUTH_STRING)}
        try:
            with temporary_settings(settings):
                yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def up(self, parts: Iterable[str] = PARTS, bootstrap: tuple[str, ...] = ("--here",)) -> None:
        """Start the given parts in the order of PARTS.

        Raises:
            StackError: a part did not start; all started parts are stopped again.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = [part for part in PARTS if part in set(parts)]
        try:
            for part in wanted:
                self.environment |= getattr(self, f"start_{part}")(wanted, bootstrap)
        except BaseException:
            self.processes.stop_all()
            raise
        lines = (f"{k}='{v}'\n" for k, v in sorted(self.environment.items()))
        write_secret(self.folder / "stack.env", "".join(lines))

    def down(self) -> None:
        self.processes.stop_all()

    def start_postgres(self, *_: object) -> dict[str, str]:
        """A PostgreSQL cluster for Prefect and MLflow."""
        initdb, server = (program(name, "postgresql") for name in ("initdb", "postgres"))
        folder, secret = self.folder / "postgres", self.folder / "postgres.secret"
        user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        if not (folder / "PG_VERSION").is_file():
            self._secret("postgres")
            folder.mkdir(exist_ok=True)
            if user:
                _let_postgres_enter(self.folder)
                for path in (folder, secret):
                    shutil.chown(path, user)
            command = [initdb, "-D", str(folder), "-U", "layerwright", "-A", "scram-sha-256"]
            command += [f"--pwfile={secret}", "-E", "UTF8", "--locale=C"]
            _run("initdb", command, user=user, cwd=folder)
        port = self._port("postgres")
        command = [server, "-D", str(folder), "-h", "127.0.0.1", "-p", str(port), "-k", ""]
        self.database = f"layerwright:{secret.read_text()}@127.0.0.1:{port}"
        ready = self._make_databases
        self.processes.start("postgres", command, self.inherited, ready, folder, user)
        return {}

    def _make_databases(self) -> bool:
        """Create missing databases; return False while the server does not answer."""
        import psycopg2

        try:
            connection = psycopg2.connect(f"postgresql://{self.database}/postgres")
        except psycopg2.OperationalError:
            return False
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT datname FROM pg_database")
            existing = {name for (name,) in cursor.fetchall()}
            for name in {"prefect", "mlflow", "mlflow_users"} - existing:
                cursor.execute(f"CREATE DATABASE {name}")
        connection.close()
        return True

    def start_redis(self, *_: object) -> dict[str, str]:
        """Redis for the locks of shared steps; it stores nothing on disk."""
        server, secret = program("redis-server", "redis-server"), self._secret("redis-password")
        port = self._port("redis")
        config = self.folder / "redis.secret"
        bound = f"bind 127.0.0.1\nport {port}\nrequirepass {secret}\n"
        write_secret(config, f'{bound}save ""\nappendonly no\n')
        ready = partial(self.processes.says, "redis", "Ready to accept")
        self.processes.start("redis", [server, str(config)], self.inherited, ready)
        return {"LAYERWRIGHT_LOCKS": f"redis://:{secret}@127.0.0.1:{port}/0"}

    def start_s3(self, *_: object) -> dict[str, str]:
        data, config = self.folder / "s3", self.folder / "s3.secret"
        data.mkdir(exist_ok=True)
        if not config.is_file():
            write_identities(config, [Identity.new("layerwright")])
        (identity,) = read_identities(config)
        command, endpoint = server_command(data, config)
        self.processes.start("s3", command, self.inherited, lambda: _answers(endpoint, 403))
        variables = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": identity.access_key,
            "AWS_SECRET_ACCESS_KEY": identity.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "LAYERWRIGHT_STORE": f"s3://{BUCKET}/store",
        }
        _make_bucket(variables)
        return variables

    def start_prefect(self, parts: list[str], *_: object) -> dict[str, str]:
        port = self._port("prefect")
        account = f"{ACCOUNT}:{self._secret('prefect')}"
        extra = {"PREFECT_SERVER_API_AUTH_STRING": account}
        if "postgres" in parts:
            url = f"postgresql+asyncpg://{self.database}/prefect"
            extra["PREFECT_API_DATABASE_CONNECTION_URL"] = url
        command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        api = f"http://127.0.0.1:{port}/api"
        ready = partial(_answers, f"{api}/health", 200)
        self.processes.start("prefect", command, self.inherited | extra, ready)
        return {"PREFECT_API_URL": api, "PREFECT_API_AUTH_STRING": account}

    def start_mlflow(self, parts: list[str], *_: object) -> dict[str, str]:
        port, password = self._port("mlflow"), self._secret("mlflow")
        backend, users = (f"sqlite:///{self.folder / name}.db" for name in ("mlflow", "users"))
        if "postgres" in parts:
            database = f"postgresql+psycopg2://{quote(self.database, safe=':@')}"
            backend, users = f"{database}/mlflow", f"{database}/mlflow_users"
        artifacts = f"s3://{BUCKET}/mlflow" if "s3" in parts else str(self.folder / "mlflow")
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
            "--backend-store-uri", backend, "--artifacts-destination", artifacts, "--workers", "1",
            "--app-name", "basic-auth"
        ]  # fmt: skip
        config = self.folder / "mlflow-users.secret"
        write_secret(config, MLFLOW_USERS.format(users=users.replace("%", "%%")))
        extra = {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # MLflow's own jobs are not used
            "MLFLOW_AUTH_CONFIG_PATH": str(config),
            "MLFLOW_AUTH_ADMIN_USERNAME": ACCOUNT,
            "MLFLOW_AUTH_ADMIN_PASSWORD": password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self._secret("mlflow-forms"),
        }
        address = f"http://127.0.0.1:{port}"
        ready = partial(_answers, f"{address}/health", 200)
        self.processes.start("mlflow", command, self.inherited | extra, ready)
        return {
            "MLFLOW_TRACKING_URI": address,
            "MLFLOW_TRACKING_USERNAME": ACCOUNT,
            "MLFLOW_TRACKING_PASSWORD": password,
        }

    def start_workers(self, parts: list[str], bootstrap: tuple[str, ...]) -> dict[str, str]:
        """Run infra/bootstrap.py, and start one worker per pool."""
        head = ["git", "rev-parse", "HEAD"]
        commit = subprocess.run(head, cwd=self.source, capture_output=True, text=True).stdout
        # the deployments of infra/prefect.yaml pull them
        self.environment["LAYERWRIGHT_REPOSITORY"] = str(self.source)
        self.environment["LAYERWRIGHT_COMMIT"] = commit.strip()
        self.environment.setdefault("MLFLOW_TRACKING_URI", self.home.tracking_uri)
        command = [sys.executable, "-m", "layerwright.infra.bootstrap", *bootstrap]
        _run("bootstrap", command, cwd=self.source, env=self.inherited)
        for pool in WORKERS:
            self.start_worker(pool)
        return {}

    def start_worker(self, pool: str, name: str = "") -> str:
        """Start another worker of a pool; return the name of its process."""
        name = name or f"worker-{pool}"
        how = ["--type", "process", "--pool", pool, "--name", name]
        ready = partial(self.processes.says, name, "started!")
        command = [*PREFECT, "worker", "start", *how]
        self.processes.start(name, command, self.inherited, ready, self.source)
        return name

    def _secret(self, part: str) -> str:
        """A password, which stays the same for this folder."""
        file = self.folder / f"{part}.secret"
        if not file.is_file():
            write_secret(file, secrets.token_hex(16))
        return file.read_text()

    def _port(self, part: str) -> int:
        """A free port; the same one when a part is started again, because clients know it."""
        if part not in self.ports:
            (self.ports[part],) = free_ports(1)
        return self.ports[part]


def _run(name: str, command: list[str], **options: Any) -> None:
    """Run a command; raise StackError if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise StackError(f"{name}: {done.stdout}{done.stderr}")


def _let_postgres_enter(folder: Path) -> None:
    """Let the user postgres enter the folder; raise StackError if a parent folder forbids it."""
    postgres = pwd.getpwnam("postgres")
    for parent in (folder, *folder.parents):
        mode = parent.stat().st_mode
        if not (mode & 0o001 or parent.stat().st_uid == postgres.pw_uid):
            if parent != folder:
                raise StackError(f"the user postgres cannot enter {parent}: use another --folder")
            parent.chmod(mode | 0o011)


def _answers(url: str, status: int) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == status
    except urllib.error.HTTPError as error:
        return error.code == status


def _make_bucket(environment: dict[str, str], seconds: float = 60) -> None:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.Session(
        environment["AWS_ACCESS_KEY_ID"],
        environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    ).client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"])
    end = time.monotonic() + seconds
    while True:  # the S3 endpoint answers before the volume server is ready
        try:
            if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"1")
            client.delete_object(Bucket=BUCKET, Key="ready")
            return
        except (ClientError, BotoCoreError):
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


@app.command()
def up(
    folder: Folder = FOLDER,
    part: Annotated[
        list[str] | None, typer.Option(help=f"Start only these parts: {', '.join(PARTS)}.")
    ] = None,
    git: Annotated[
        bool, typer.Option("--git", help="Workers pull the commit instead of using this folder.")
    ] = False,
) -> None:
    """Start the stack and print how to use it."""
    unknown = set(part or ()) - set(PARTS)
    if unknown:
        names = ", ".join(sorted(unknown))
        raise typer.BadParameter(f"unknown part {names}; the parts are {', '.join(PARTS)}")
    stack = Stack(folder)
    if stack.processes.known():
        raise typer.BadParameter(f"{folder} has a running or crashed stack; run `down` first")
    stack.up(part or PARTS, () if git else ("--here",))
    typer.echo(f"the stack is running; set up clients: set -a; . {folder / 'stack.env'}; set +a")


@app.command()
def down(folder: Folder = FOLDER) -> None:
    """Stop everything that `up` started; the data is kept."""
    Stack(folder).down()


def main() -> None:
    try:
        app()
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
