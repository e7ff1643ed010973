"""Dashboard and alert rules: each metric that they name is in a scrape, and promtool agrees."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.payloads import event
from tests.support.server import KEY, ROOT, LedgerServer, free_port, wait_until

pytestmark = pytest.mark.slow

RULES = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "ledger.json"

NAME = re.compile(r"\b(?:ledger|process)_\w+")


def expressions() -> Iterator[str]:
    rules = yaml.safe_load((RULES / "alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def names_in(url: str) -> set[str]:
    headers = {"Authorization": f"Bearer {KEY}"}
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics", headers=headers).text)
    return {sample.name for family in families for sample in family.samples}


def test_each_metric_that_is_asked_for_is_in_a_scrape(database_url: str, tmp_path: Path) -> None:
    at = f"127.0.0.1:{free_port()}"
    with LedgerServer(database_url, tmp_path, settings={"LEDGER_LISTEN_PROJECTOR": at}) as server:
        server.record(event("lab", "b"))
        server.settle()
        server.get("/v1/labs/lab/bills/b")
        found = names_in(server.url) | names_in(f"http://{at}")
    wanted = {name for each in expressions() for name in NAME.findall(each)}
    assert len(wanted) > 40
    assert wanted - found == set()


def test_a_projector_tells_what_it_does(database_url: str, tmp_path: Path) -> None:
    at = f"127.0.0.1:{free_port()}"
    with LedgerServer(database_url, tmp_path, settings={"LEDGER_LISTEN_PROJECTOR": at}) as server:

        def told() -> dict[str, float]:
            families = text_string_to_metric_families(httpx.get(f"http://{at}/metrics").text)
            return {each.name: each.value for family in families for each in family.samples}

        wait_until(lambda: told()["ledger_projector_leads"] == 1, "it leads")
        server.record(event("lab", "b"), event("lab", "c"))
        server.settle()
        wait_until(lambda: told()["ledger_folded_events_total"] == 2, "it has folded")
        assert told()["ledger_folded_bills_total"] == 2
        assert told()["ledger_fold_seconds_count"] >= 1
        assert told()["ledger_projector_failures_total"] == 0
        taken = server.run("project")
        assert taken.returncode == 1
        assert b"LEDGER_LISTEN_PROJECTOR" in taken.stderr


def test_promtool_finds_the_rules_right_and_their_tests_pass() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt install prometheus)")
    for arguments in (
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
        ["check", "config", "prometheus.yml"],
    ):
        done = subprocess.run([promtool, *arguments], cwd=RULES, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
