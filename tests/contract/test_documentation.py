"""The documents name every setting, route and command, and no others; their commands work."""

import json
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import rich_click as click
from msgspec.structs import fields

from docs.metrics_page import PAGE, metrics_page
from ledger.cli import ledger
from ledger.settings import PREFIX, TEST_PREFIX, Settings
from tests.support.server import ROOT, LedgerServer, environment

FILES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
# The reference names everything by itself: it is generated.
DOCUMENTS = "\n".join(
    file.read_text() for file in FILES if file.parent != ROOT / "docs" / "reference"
)
PATHS = sorted(json.loads((ROOT / "api_schema" / "openapi.json").read_bytes())["paths"])
SETTINGS = sorted(PREFIX + field.name.upper() for field in fields(Settings))
BLOCKS = re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", DOCUMENTS, re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_documented(name: str) -> None:
    assert f"`{name}`" in DOCUMENTS


def test_every_setting_that_is_named_exists() -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", DOCUMENTS))
    # What is no setting, and is said to be none.
    named -= {"LEDGER_SERVICE_HOST"}
    assert {name for name in named if not name.startswith(TEST_PREFIX)} <= set(SETTINGS)


def _shown(default: int | str) -> str:
    return ("off", "on")[default] if isinstance(default, bool) else str(default)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_default_in_the_table_is_the_one_of_the_code(name: str) -> None:
    (row,) = (
        line
        for line in DOCUMENTS.splitlines()
        if line.startswith("| ") and f"`{name}`" in line.split("|")[1]
    )
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    default = getattr(Settings(), name.removeprefix(PREFIX).lower())
    if isinstance(default, (int, str)) and default != "":
        index = re.findall(r"`([^`]+)`", cells[0]).index(name)
        assert re.findall(r"`([^`]+)`", cells[1])[index] == _shown(default)


@pytest.mark.parametrize("path", PATHS)
def test_every_route_is_documented(path: str) -> None:
    pattern = re.sub(r"\\\{[^/]+\\\}", r"[^/\\s`]+", re.escape(path))
    assert re.search(rf"{pattern}(?![\w/])", DOCUMENTS), path


@pytest.mark.parametrize("command", ledger.list_commands(click.Context(ledger)))
def test_every_command_is_documented(command: str) -> None:
    assert re.search(rf"\bledger {command}\b", DOCUMENTS)


def test_every_command_and_option_that_is_shown_exists() -> None:
    for line in LINES:
        words = line.removeprefix("$ ").partition(" #")[0].split()
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if not words or not words[0].endswith("ledger") or len(words) < 2:
            continue
        command = ledger.get_command(click.Context(ledger), words[1])
        if isinstance(command, click.Group):
            command = command.get_command(click.Context(command), words.pop(2))
        assert command is not None, line
        known = {option for parameter in command.params for option in parameter.opts}
        known |= {option for parameter in command.params for option in parameter.secondary_opts}
        for word in words[2:]:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, line


def curl_lines() -> list[str]:
    """Give the curl lines of the blocks that are made to be pasted, the endless one aside."""
    pasted = re.findall(r"^```(?:bash|sh)\n(.*?)^```", DOCUMENTS, re.MULTILINE | re.DOTALL)
    lines: list[str] = []
    for block in pasted:
        found = re.findall(r"^curl (?:[^'\n]|'[^']*')*$", block, re.MULTILINE)
        lines += [line for line in found if "event-stream" not in line]
    return lines


@pytest.mark.slow
def test_every_curl_line_does_what_it_says(server: LedgerServer) -> None:
    lines = curl_lines()
    assert lines
    variables = {
        "URL": server.url,
        "TOKEN": server.token,
        "KEY": server.settings["LEDGER_ADMIN_KEY"],
    }
    for line in lines:
        done = subprocess.run(
            ["bash", "-c", f"{line} --fail-with-body"],  # noqa: S607 -- whichever the PATH has
            env=environment(variables),
            capture_output=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 0, line + done.stdout.decode() + done.stderr.decode()
        if "webhooks" in line:
            assert json.loads(done.stdout)["outcome"] in {"recorded", "duplicate"}, line
            server.settle()


@pytest.mark.slow
def test_the_readme_brings_a_lost_event_back(server: LedgerServer, tmp_path: Path) -> None:
    """The server's retries are over at once, so that nothing has to be waited for."""
    readme = (ROOT / "README.md").read_text()
    _, heading, rest = readme.partition("\n## A lost event")
    assert heading
    story = rest.partition("\n## ")[0]
    (tmp_path / "ledger-data").mkdir()
    (tmp_path / "ledger-data" / "env").write_text("")
    (tmp_path / "ledger").write_text(f'#!/bin/sh\nexec {sys.executable} -m ledger "$@"\n')
    (tmp_path / "ledger").chmod(0o755)
    variables = environment(
        {
            **server.settings,
            "URL": server.url,
            "TOKEN": server.token,
            "KEY": server.settings["LEDGER_ADMIN_KEY"],
            "PYTHONPATH": str(ROOT),
        }
    )
    variables["PATH"] = f"{tmp_path}:{variables['PATH']}"
    printed = []
    for block in re.findall(r"^```(?:bash|console)\n(.*?)^```", story, re.MULTILINE | re.DOTALL):
        script = re.sub(r"^\$ ", "", block, flags=re.MULTILINE)
        done = subprocess.run(
            ["bash", "-ec", script],  # noqa: S607 -- whichever the PATH has
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, script + done.stdout.decode() + done.stderr.decode()
        server.settle()
        printed.append(done.stdout.decode())
    _, received, asked, requested, answered = printed
    assert received.count('"outcome":') == 2
    assert '"event_type":"report.completed"' in asked
    assert "1 event is overdue" in requested
    assert "`bill_1`" in (tmp_path / "letter.md").read_text()
    assert "settled 1" in answered
    assert re.search(r"^1\tclosed\t", answered, re.MULTILINE)
    assert server.api.get("/v1/missing-events", params={"lab_id": "lab_1"}).json()["items"] == []


def test_every_query_that_is_shown_runs_for_a_reader(server: LedgerServer) -> None:
    blocks = re.findall(r"^```sql\n(.*?)^```", DOCUMENTS, re.MULTILINE | re.DOTALL)
    queries = [query for block in blocks for query in block.split(";\n") if query.strip()]
    assert queries
    with psycopg.connect(server.settings["LEDGER_DATABASE_URL"]) as connection:
        connection.execute("SET ROLE ledger_reader")
        for query in queries:
            connection.execute(query.encode())


def test_the_page_of_metrics_is_what_a_server_tells(server: LedgerServer) -> None:
    server.get("/v1/projection")
    scrape = server.api.get("/metrics").text
    assert PAGE.read_text(encoding="utf-8") == metrics_page(scrape), "run `make reference`"


def test_every_link_to_a_file_leads_somewhere() -> None:
    broken = [
        f"{file.relative_to(ROOT)}: {link}"
        for file in FILES
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text())
        if not (file.parent / link).exists()
    ]
    assert broken == []


def test_every_file_that_a_document_names_exists() -> None:
    named = set(re.findall(r"`((?:ledger|tests|migrations|benchmarks)/[\w./]+)`", DOCUMENTS))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
