"""Wheel and sdist work where the repository is not."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.server import ROOT

pytestmark = pytest.mark.slow


def build(source: Path, target: str, folder: Path) -> Path:
    """Build a distribution of a folder."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", folder],
        cwd=source,
        check=True,
        capture_output=True,
    )
    [found] = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


def test_the_wheel_runs_elsewhere(wheel: Path, empty_database_url: str, tmp_path: Path) -> None:
    """Installed alone; what it needs lies in this environment, which has no package `ledger`."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel],
        check=True,
        capture_output=True,
    )
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("LEDGER_")},
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "LEDGER_DATABASE_URL": empty_database_url,
    }

    def ledger(*words: str) -> str:
        done = subprocess.run(
            [home / "bin" / "ledger", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = [str(python), "-c", "import ledger; print(ledger.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert str(home) in found.stdout.decode()
    ledger("migrate")
    assert '"head":0' in ledger("status", "--json")
    assert ledger("verify")


def test_the_sdist_holds_all_that_the_wheel_is_made_of(wheel: Path, tmp_path: Path) -> None:
    packed = build(ROOT, "sdist", tmp_path / "sdist")
    with tarfile.open(packed) as tar:
        tar.extractall(tmp_path, filter="data")
    again = build(tmp_path / packed.name.removesuffix(".tar.gz"), "wheel", tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert {*first.namelist()} == {*second.namelist()}
