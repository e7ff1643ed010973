"""Makes spans with OpenTelemetry and exports them over OTLP; loaded only where traces are wanted.

The trace id of a delivery is the start of its event's digest, which every process reads in the log.
So the receiver and the projector meet in one trace, and nothing about it is stored.
"""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_SERVER_ERROR = 500


class _Ids(RandomIdGenerator):
    """Random ids, except that a root span may be given its own."""

    root: SpanContext | None = None

    def generate_trace_id(self) -> int:
        return self.root.trace_id if self.root else super().generate_trace_id()

    def generate_span_id(self) -> int:
        return self.root.span_id if self.root else super().generate_span_id()


class Spans:
    """Makes the spans of one process, all from one thread. None of them holds a body or a key."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        self._ids = _Ids()
        self._provider = TracerProvider(id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("ledger")

    def committed(
        self, deliveries: Iterable[tuple[bytes, datetime, int, str]], began: datetime
    ) -> None:
        """Make the spans of deliveries that one transaction committed, which began at a time.

        Of each: the digest, when it was received, its position, and its outcome. A repeat joins
        the trace of its event. Each commit links to the first one's, which it shares.
        """
        end, commit = time.time_ns(), _nanoseconds(began)
        shared: list[Link] = []
        for digest, received_at, position, outcome in deliveries:
            root, start = self._root(digest), _nanoseconds(received_at)
            attributes: dict[str, int | str] = {
                "ledger.position": position,
                "ledger.outcome": outcome,
            }
            if outcome == "duplicate":
                span = self._tracer.start_span(
                    "delivery", _below(root), SpanKind.SERVER, attributes, start_time=start
                )
            else:
                self._ids.root = root
                span = self._tracer.start_span(
                    "delivery", Context(), SpanKind.SERVER, attributes, start_time=start
                )
                self._ids.root = None
            inside = set_span_in_context(span, Context())
            self._tracer.start_span("wait", inside, start_time=start).end(max(start, commit))
            one = self._tracer.start_span("commit", inside, links=shared, start_time=commit)
            one.end(end)
            shared = shared or [Link(one.get_span_context())]
            span.end(end)

    def folded(self, events: Sequence[tuple[bytes, int]], seconds: float) -> None:
        """Make the spans of events, by digest and position, whose state was just committed."""
        end = time.time_ns()
        start = end - int(seconds * 1e9)
        for digest, position in events:
            attributes = {"ledger.position": position, "ledger.events": len(events)}
            within = _below(self._root(digest))
            self._tracer.start_span("fold", within, attributes=attributes, start_time=start).end(
                end
            )

    def requested(
        self, method: str, route: str, status: int, seconds: float, headers: Mapping[str, str]
    ) -> None:
        """Make the span of an API request that was just answered, in its caller's trace."""
        end = time.time_ns()
        span = self._tracer.start_span(
            f"{method} {route}",
            TraceContextTextMapPropagator().extract(headers, Context()),
            SpanKind.SERVER,
            {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
                **({"error.type": str(status)} if status >= _SERVER_ERROR else {}),
            },
            start_time=end - int(seconds * 1e9),
        )
        span.end(end)

    def flush(self, *, within: float) -> None:
        """Export what waits, and give up after so many seconds."""
        # OpenTelemetry's own time limit does not hold while its exporter retries.
        thread = threading.Thread(target=self._provider.force_flush, daemon=True)
        thread.start()
        thread.join(within)

    def _root(self, digest: bytes) -> SpanContext:
        """Return the span of an event's first delivery, which every process knows."""
        trace_id = int.from_bytes(digest[:16], "big")
        decision = self._provider.sampler.should_sample(None, trace_id, "delivery").decision
        sampled = decision is Decision.RECORD_AND_SAMPLE
        flags = TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT
        span_id = int.from_bytes(digest[16:24], "big")
        return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))


def _below(parent: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1e6) * 1000
