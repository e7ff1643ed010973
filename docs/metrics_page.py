"""Writes docs/reference/metrics.md from a scrape of a server; `make reference` runs it."""

import sys
import tempfile
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from ledger import schema
from ledger.projection.projector_metrics import ProjectorMetrics
from tests.support.addresses import database_of
from tests.support.postgres import new_database, running_server
from tests.support.server import LedgerServer

PAGE = Path(__file__).parent / "reference" / "metrics.md"

_HEAD = """\
# Metrics

*Generated from the code by `make reference`.*

What `/metrics` of `ledger serve` tells Prometheus. At which address, and what gauges are while the
database is away: [operating](../operating.md#health-and-metrics).

| Metric | Type | Meaning |
|---|---|---|
"""


_PROJECTOR = """
## The projector

What `ledger project` tells at `LEDGER_LISTEN_PROJECTOR`, with the standard metrics of its process.

| Metric | Type | Meaning |
|---|---|---|
"""


def metrics_page(scrape: str) -> str:
    """Return the page that describes what a server's /metrics answered, and the projector's."""
    return _HEAD + _rows(scrape) + _PROJECTOR + _rows(ProjectorMetrics().exposition())


def _rows(scrape: str) -> str:
    rows = []
    for family in text_string_to_metric_families(scrape):
        if family.name.startswith("ledger_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            rows.append(f"| `{name}` | {family.type} | {family.documentation} |\n")
    return "".join(sorted(rows))


def main() -> None:
    """Write the page, from a server with a database of its own."""
    with running_server() as server, new_database(server) as name:
        url = database_of(server, name)
        schema.migrate(url)
        with (
            tempfile.TemporaryDirectory() as folder,
            LedgerServer(url, Path(folder), project=False) as ledger,
        ):
            ledger.get("/v1/projection")  # metrics of routes begin with a request
            scrape = ledger.api.get("/metrics").text
    PAGE.write_text(metrics_page(scrape), encoding="utf-8")
    sys.stdout.write(f"{PAGE} written\n")


if __name__ == "__main__":
    main()
