"""A delivery's way from request to commit to fold is one trace, over real processes."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.payloads import event
from tests.support.server import KEY, TOKEN, LedgerServer, free_port, wait_until


class Collector(ThreadingHTTPServer):
    """Takes spans over OTLP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[bytes] = []

    def spans(self) -> list[Span]:
        return [
            span
            for content in list(self.requests)
            for resource in ExportTraceServiceRequest.FromString(content).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append(content)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name there
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def settings(port: int) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }


@pytest.mark.slow
def test_from_request_to_fold_is_one_trace(
    database_url: str, tmp_path: Path, collector: Collector
) -> None:
    port = collector.server_address[1]
    with LedgerServer(database_url, tmp_path, settings=settings(port)) as server:
        body = event("bill.created", "bill-of-the-trace")
        server.record(body, body)
        server.settle()
        caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        server.api.get("/v1/projection", headers={"traceparent": caller})

        def found() -> list[Span]:
            spans = collector.spans()
            names = [span.name for span in spans]
            ready = names.count("delivery") == 2 and "fold" in names
            return spans if ready and any(s.trace_id.hex() in caller for s in spans) else []

        spans = wait_until(found, "the spans are exported")
    way = [span for span in spans if span.name in {"delivery", "wait", "commit", "fold"}]
    assert len({span.trace_id for span in way}) == 1
    [root] = [span for span in way if not span.parent_span_id]
    [fold] = [span for span in way if span.name == "fold"]
    assert (root.name, fold.parent_span_id) == ("delivery", root.span_id)
    sent = b"".join(collector.requests)
    for secret in (TOKEN, KEY, "bill-of-the-trace"):
        assert secret.encode() not in sent


@pytest.mark.slow
def test_a_collector_that_is_away_breaks_nothing(database_url: str, tmp_path: Path) -> None:
    with LedgerServer(database_url, tmp_path, settings=settings(free_port())) as server:
        server.record(event("bill.created", "bill-of-the-trace"))
        server.settle()
        assert server.projector
        assert server.projector.terminate() == 0
        assert server.serve.terminate() == 0


def test_without_the_variables_opentelemetry_is_not_loaded() -> None:
    code = """import sys, ledger.app, ledger.cli.project
print([name for name in sys.modules if "opentel" in name])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
