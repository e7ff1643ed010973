"""Rules about the source that neither the linter nor the import contracts can state."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ledger"
MODULES = sorted(PACKAGE.rglob("*.py"))
PURE_MODULES = sorted((PACKAGE / "model").rglob("*.py"))

ENVIRONMENT = re.compile(r"\b(environb?|getenvb?|putenv)\b")
CLOCK = re.compile(
    r"\.(now|utcnow|today)\(|\btime\.(time|monotonic|perf_counter)|^import time\b", re.MULTILINE
)


def lines_with(pattern: re.Pattern[str], modules: list[Path]) -> list[str]:
    """Give every place where the pattern stands, as path:line."""
    return [
        f"{module.relative_to(PACKAGE.parent)}:{number}"
        for module in modules
        for number, line in enumerate(module.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]


def test_only_settings_reads_the_environment() -> None:
    others = [module for module in MODULES if module != PACKAGE / "settings.py"]
    assert lines_with(ENVIRONMENT, others) == []


def test_the_model_reads_no_clock() -> None:
    assert PURE_MODULES, "ledger/model has moved; this test must follow it"
    assert lines_with(CLOCK, PURE_MODULES) == []


TESTS = Path(__file__).parents[1]
BORROWED = re.compile(r"^\s*(?:from|import) (?:benchmarks|tests\.(?!support\b))", re.MULTILINE)


def test_tests_import_from_their_support_alone() -> None:
    found = [
        path.relative_to(TESTS)
        for path in sorted(TESTS.rglob("*.py"))
        if BORROWED.search(path.read_text(encoding="utf-8"))
    ]
    # A process of its own imports what the module gives it.
    assert found == [Path("integration/test_embedded.py")]


@pytest.mark.parametrize(
    "line",
    ["os.environ['X']", "from os import environ", "os.getenv('X')"],
)
def test_the_pattern_for_the_environment_finds_each_way_to_read_it(line: str) -> None:
    assert ENVIRONMENT.search(line)


@pytest.mark.parametrize(
    "line",
    ["datetime.now(UTC)", "date.today()", "time.time()", "time.monotonic_ns()", "import time"],
)
def test_the_pattern_for_clocks_finds_each_way_to_read_one(line: str) -> None:
    assert CLOCK.search(line)


def test_no_file_holds_what_a_merge_left_undecided() -> None:
    marker = re.compile(rb"^(?:<{7}|>{7})(?: |$)", re.MULTILINE)
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git repository")
    names = listed.stdout.decode().rstrip("\0").split("\0")
    assert names
    undecided = [name for name in names if marker.search((ROOT / name).read_bytes())]
    assert undecided == []
