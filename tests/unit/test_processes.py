"""What a process leaves behind, and which limits it works under."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ledger.processes import raise_descriptor_limit, temporary_folder, user_name

HOLDER = """
import sys, time
from ledger.processes import temporary_folder
with temporary_folder("held-") as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_the_folder_of_a_killed_process_is_deleted_by_the_next_and_no_other(
    temporary: Path,
) -> None:
    other = temporary / "else"
    other.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        held = Path(holder.stdout.readline().decode().strip())
        (held / "file").touch()
        with temporary_folder("held-") as folder:
            assert held.exists(), "it is in use"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert not folder.exists()
    assert held.exists()
    with temporary_folder("held-") as folder:
        assert set(temporary.iterdir()) == {folder, other}
    assert list(temporary.iterdir()) == [other]


def test_the_descriptor_limit_becomes_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        assert raise_descriptor_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_user_without_a_name_has_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    with monkeypatch.context() as patched:
        patched.setattr(os, "getuid", lambda: 2**31 - 7)
        assert user_name() == f"user {2**31 - 7}"
    assert user_name()
