"""`ledger up`: everything on an embedded PostgreSQL."""

import json
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest

from tests.support.commands import assert_sentence
from tests.support.server import Process, environment, free_port, run_ledger, wait_until


@contextmanager
def new_folder() -> Iterator[Path]:
    """Give a folder that the server's user may enter, with a space in its name."""
    made = Path(tempfile.mkdtemp(prefix="ledger up ", dir="/tmp"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)


class Up:
    """A running `ledger up`."""

    def __init__(
        self, folder: Path, name: str, *, port: int | None, settings: Mapping[str, str]
    ) -> None:
        self.data = folder / "data"
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = Process(
            "up", "--data", str(self.data), "--port", str(self.port),
            settings=settings, output=folder / f"{name}.log",
        )  # fmt: skip

    @property
    def output(self) -> str:
        return self.process.output

    def wait_until_running(self) -> None:
        wait_until(
            lambda: "Running." in self.output or not self.process.running,
            "ledger up runs",
            seconds=60,
        )
        assert self.process.running, self.output

    def secret(self, name: str) -> str:
        return (self.data / name).read_text().strip()

    def get(self, path: str) -> httpx.Response:
        return httpx.get(
            self.url + path,
            headers={"Authorization": f"Bearer {self.secret('admin-key')}"},
            trust_env=False,
            timeout=30,
        )


@contextmanager
def up(
    folder: Path,
    name: str,
    *,
    port: int | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Up]:
    made = Up(folder, name, port=port, settings=settings)
    try:
        made.wait_until_running()
        yield made
    finally:
        if made.process.running:
            made.process.terminate()
        wait_until(lambda: not survivors(folder), "no process is left", seconds=30)


def survivors(folder: Path) -> list[str]:
    """Return the processes that work for a data folder: by its name, or by its database."""
    found: list[str] = []
    port_file = folder / "data" / "postgres" / "cluster" / "postmaster.pid"
    port = port_file.read_text().splitlines()[3] if port_file.exists() else "no port"
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            settings = (process / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if not command:  # ended, and not waited for yet
            continue
        of_ledger = "-m ledger" in command and f":{port}/ledger" in settings
        if str(folder) in command or of_ledger:
            found.append(command)
    return found


def children(pid: int) -> dict[str, int]:
    """Return the children of a process that are commands of Ledger, by command."""
    found: dict[str, int] = {}
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in file.read_text().split():
            command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if b"ledger" in command:
                found[command[command.index(b"ledger") + 1].decode()] = int(child)
    return found


def pasted(line: str, cwd: Path = Path("/")) -> str:
    """Run a line as if pasted into another terminal, on which `ledger` is not known."""
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        env=environment({"PATH": "/usr/local/bin:/usr/bin:/bin"}),
        cwd=cwd,
        capture_output=True,
        check=True,
        text=True,
        timeout=30,
    )
    return done.stdout


def lines_of(output: str, command: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith(f"{command} ")]


def test_up_from_the_first_start_to_the_last() -> None:
    """One story, for each start costs seconds."""
    with new_folder() as folder:
        tell_the_story(folder)


def tell_the_story(folder: Path) -> None:
    with up(folder, "first", settings={"LEDGER_EVENTS": "bill.created"}) as first:
        token, key = first.secret("webhook-token"), first.secret("admin-key")
        # What is printed: the address, the secrets once, lines that work when pasted.
        for shown in (first.url, token, key):
            assert shown in first.output
        for name in ("webhook-token", "admin-key", "postgres/password"):
            assert stat.S_IMODE((first.data / name).stat().st_mode) & 0o077 == 0
        send, ask = lines_of(first.output, "curl")
        answer = json.loads(pasted(send))
        assert answer == {"outcome": "recorded", "position": 1}
        assert first.get("/v1/projection?min_position=1&wait_ms=20000").status_code == 200
        assert json.loads(pasted(ask))["bill_id"] == "bill_1"
        postgres = check_environment_file(first)
        # A second one on the same folder is refused.
        other = run_ledger("up", "--data", str(first.data), "--port", str(free_port()))
        assert other.returncode == 1
        assert b"another `ledger up`" in other.stderr
        assert b"Traceback" not in other.stderr
        # A child that dies is started again.
        for command in ("serve", "project"):
            before = children(first.process.pid)[command]
            subprocess.run(["kill", "-9", str(before)], check=True)  # noqa: S607 -- whichever the PATH has
            wait_until(
                lambda command=command, before=before: (  # type: ignore[misc]
                    children(first.process.pid).get(command, before) != before
                ),
                f"another ledger {command}",
                seconds=30,
            )

        def answers() -> bool:
            try:
                return httpx.get(f"{first.url}/health/ready", trust_env=False).is_success
            except httpx.TransportError:
                return False

        wait_until(answers, "the server answers again", seconds=30)
        body = json.dumps({"labID": "lab_1", "eventType": "x", "eventTime": 1705747800})
        sent = httpx.post(
            f"{first.url}/webhooks/flabs/{token}", content=body, trust_env=False, timeout=20
        )
        assert sent.json()["position"] == 2
        # SIGTERM ends it cleanly.
        assert first.process.terminate() == 0
        assert "Traceback" not in first.output
    assert not survivors(folder)

    with up(folder, "second", port=first.port) as second:
        assert (second.secret("webhook-token"), second.secret("admin-key")) == (token, key)
        assert token not in second.output
        assert key not in second.output
        assert second.get("/v1/labs/lab_1/bills/bill_1").json()["events"] == 1
        # PostgreSQL is where it was.
        assert variable(second, "LEDGER_DATABASE_URL") == postgres
        # kill -9 leaves nothing behind.
        second.process.send_signal(signal.SIGKILL)
        second.process.wait()
        wait_until(lambda: not survivors(folder), "nothing is left behind", seconds=30)

    # Secrets that are given are taken, and kept.
    given = {
        "LEDGER_WEBHOOK_TOKENS": "a-token-of-the-environment,another-of-the-environment",
        "LEDGER_ADMIN_KEY": "a-key-of-the-environment",
        "LEDGER_DATABASE_URL": "postgresql://elsewhere/ledger",
        "LEDGER_PORT": str(first.port),
        "LEDGER_LISTEN_INTAKE": "0.0.0.0:1",
        "LEDGER_TLS_KEY": "/none",
    }
    with up(folder, "third", port=first.port, settings=given) as third:
        assert third.secret("webhook-token") == "a-token-of-the-environment"
        assert third.secret("admin-key") == "a-key-of-the-environment"
        assert "-of-the-environment" not in third.output
        for name in ("LEDGER_DATABASE_URL", "LEDGER_LISTEN_INTAKE", "LEDGER_TLS_KEY"):
            assert f"{name} is ignored" in third.output
        assert third.get("/v1/projection").json()["head"] == 2
        for each in given["LEDGER_WEBHOOK_TOKENS"].split(","):
            path = f"{third.url}/webhooks/flabs/{each}"
            assert httpx.post(path, content=body, trust_env=False, timeout=20).status_code == 200
        third.process.send_signal(signal.SIGINT)
        assert third.process.wait() == 0


def check_environment_file(running: Up) -> str:
    """Check that another terminal gets what commands and curl need; return the database's URL."""
    env = shlex.quote(str(running.data / "env"))
    assert "1 event\n" in pasted(f". {env}; . {env}; ledger status")
    shown = pasted(f'. {env}; curl -sS "$URL/v1/events" -H "Authorization: Bearer $KEY"')
    assert json.loads(shown)["items"][0]["position"] == 1
    assert variable(running, "TOKEN") == running.secret("webhook-token")
    assert variable(running, "LEDGER_EVENTS") == "bill.created"
    assert pasted(f". {env}; . {env}; echo $PATH | tr : '\\n' | sort | uniq -d") == ""
    return variable(running, "LEDGER_DATABASE_URL")


def variable(running: Up, name: str) -> str:
    """Return a variable of a terminal that has read the environment file."""
    return pasted(f'. {shlex.quote(str(running.data / "env"))}; echo "${name}"').strip()


@pytest.fixture(scope="module")
def behind_proxy() -> Iterator[Up]:
    """Give a running one that was told of a proxy which does not answer."""
    proxy = f"http://127.0.0.1:{free_port()}"
    settings = {"HTTP_PROXY": proxy, "http_proxy": proxy, "NO_PROXY": "", "no_proxy": ""}
    with new_folder() as folder, up(folder, "up", settings=settings) as running:
        yield running


def test_up_does_not_ask_a_proxy_for_itself(behind_proxy: Up) -> None:
    assert behind_proxy.get("/v1/projection").status_code == 200


def test_up_prints_a_line_for_psql_that_works(behind_proxy: Up) -> None:
    if shutil.which("psql") is None:
        pytest.skip("psql is not installed")
    (line,) = re.findall(r"PGPASSWORD=.*", behind_proxy.output)
    assert pasted(f"{line} -Atc 'SELECT 1'").strip() == "1"


def test_a_bad_setting_is_a_sentence_before_anything_is_made(tmp_path: Path) -> None:
    settings = {"LEDGER_RETRY_CUONT": "3"}
    done = run_ledger("up", "--data", str(tmp_path / "data"), settings=settings)
    assert_sentence(done, "did you mean LEDGER_RETRY_COUNT")
    assert not (tmp_path / "data").exists()


def test_the_port_is_that_of_the_settings_unless_one_is_given(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_ledger("up", "--data", str(tmp_path / "data"), settings={"LEDGER_PORT": port})
    assert_sentence(done, f"cannot listen on port {port}")


def test_a_taken_port_is_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run_ledger("up", "--data", str(tmp_path / "data"), "--port", port)
    assert done.returncode == 1
    assert port in done.stderr.decode()
    assert "--port" in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_ledger("up", "--data", str(tmp_path / "file" / "data"), "--port", str(free_port()))
    assert done.returncode == 1
    assert str(tmp_path / "file") in done.stderr.decode()
    assert b"Traceback" not in done.stderr
