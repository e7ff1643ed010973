"""Clients that others' generators make of the OpenAPI document work against a server."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.payloads import BASE, event
from tests.support.server import KEY, ROOT, TOKEN, LedgerServer

pytestmark = pytest.mark.slow

OPENAPI = ROOT / "api_schema" / "openapi.json"
TYPESCRIPT = ROOT / "tests" / "clients" / "typescript"
OURS = ("EUSAGE", "EINTEGRITY", "EBADENGINE", "EJSONPARSE")
"""What npm says of a fault in our files; anything else is the registry's, or its absence."""

DONE = {"test_1": "completed"}


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.fixture(scope="module")
def python_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generate the Python client, and give the folder to import it from."""
    folder = tmp_path_factory.mktemp("python")
    generator = shutil.which("openapi-python-client", path=str(Path(sys.executable).parent))
    assert generator is not None
    options = ("--meta", "none", "--output-path", folder / "ledger_client")
    done = run(generator, "generate", "--path", OPENAPI, *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr, done.stdout + done.stderr
    return folder


def test_the_python_client_has_every_operation(python_client: Path) -> None:
    paths = json.loads(OPENAPI.read_bytes())["paths"]
    modules = (python_client / "ledger_client" / "api").rglob("[a-z]*.py")
    assert len(list(modules)) == sum(len(operations) for operations in paths.values())


def test_the_python_client_works(
    python_client: Path, server: LedgerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(python_client)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def module(name: str) -> ModuleType:
        return importlib.import_module(f"ledger_client.{name}")

    models = module("models")

    def client(secret: str) -> Any:  # noqa: ANN401 -- of the generated package
        return module("client").AuthenticatedClient(base_url=server.url, token=secret)

    wanted = models.KeyBody(name="Python", scope=models.KeyBodyScope.OPERATE)
    with client(KEY) as admin:
        made = module("api.admin.create_key").sync(client=admin, body=wanted)
    sent = [
        event("lab_python", "bill/1", "bill.created", tests=DONE),
        event("lab_python", "bill/1", "bill.completed", at=BASE + 60, tests=DONE),
    ]
    receive = module("api.intake.receive_webhook").sync
    with client(TOKEN) as flabs:
        stored = [receive(client=flabs, body=payload) for payload in sent]
    assert [each.outcome for each in stored] == ["recorded", "recorded"]

    with client(made.key) as ledger:
        bill = module("api.read.get_bill").sync(
            "lab_python", "bill/1", client=ledger, min_position=stored[-1].position, wait_ms=30_000
        )
        assert (bill.state, bill.reports[0].test_id) == ("completed", "test_1")
        listed = module("api.read.list_missing_events").sync(client=ledger, lab_id="lab_python")
        (missing,) = listed.items
        assert (missing.event_type, missing.state) == ("report.completed", "overdue")
        waiver = models.WaiveBody(
            lab_id=missing.lab_id,
            bill_id=missing.bill_id,
            event_type=models.WaiveBodyEventType(missing.event_type),
            test_id=missing.test_id,
            reason="a test",
        )
        waived = module("api.operate.waive_missing_event").sync(client=ledger, body=waiver)
        assert waived.state == "waived"
        problem = module("api.read.get_bill").sync("lab_python", "none", client=ledger)
        assert isinstance(problem, models.Problem)
        assert problem.status == 404

        lines = json.dumps(event("lab_python", "2")).encode()
        file = module("types").File(payload=lines)
        report = module("api.operate.import_events").sync(client=ledger, body=file)
        assert report.recorded == 1


@pytest.fixture(scope="module")
def typescript_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generate and compile the TypeScript client, and give its folder; or skip the test."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("typescript") / "client"
    shutil.copytree(TYPESCRIPT, folder)
    installed = run(npm, "ci", "--prefer-offline", "--fetch-retries=2", cwd=folder)
    if installed.returncode and not any(word in installed.stderr for word in OURS):
        pytest.skip(f"npm installs nothing here: {installed.stderr.splitlines()[:1]}")
    assert installed.returncode == 0, installed.stderr
    programs = folder / "node_modules" / ".bin"
    made = run(programs / "openapi-typescript", OPENAPI, "--output", "ledger.d.ts", cwd=folder)
    assert made.returncode == 0, made.stderr
    compiled = run(programs / "tsc", cwd=folder)
    assert compiled.returncode == 0, compiled.stdout
    return folder


def test_the_typescript_client_works(typescript_client: Path, server: LedgerServer) -> None:
    done = run(
        "node", "use_client.js", server.url, KEY, TOKEN, "lab_typescript", cwd=typescript_client
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "scope": "operate",
        "state": "completed",
        "reports": [["test_1", "2024-01-20T11:50:00Z"]],
        "missing": [["report.completed", "test_1", "overdue"]],
        "waived": ["report.completed", "test_1"],
        "unknown": 404,
    }


def test_the_lock_of_the_typescript_client_names_no_registry() -> None:
    lock = json.loads((TYPESCRIPT / "package-lock.json").read_bytes())
    packages = [package for name, package in lock["packages"].items() if name]
    assert all("integrity" in package for package in packages)
    assert [package for package in packages if "resolved" in package] == []
