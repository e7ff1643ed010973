"""Whether this process makes traces. Off is `spans is None`, and OpenTelemetry is not loaded."""

from typing import TYPE_CHECKING

from ledger.errors import SettingsError
from ledger.settings import wants_traces

if TYPE_CHECKING:
    from ledger.open_telemetry import Spans

FLUSH_SECONDS = 1.0
"""How long the end of a process waits for the collector."""

spans: "Spans | None" = None


def start_tracing() -> None:
    """Make traces from now on, if OpenTelemetry's variables ask for it.

    Raises `SettingsError` if the extra `tracing` is not installed.
    """
    global spans  # noqa: PLW0603 -- one a process, and the hot path looks at it
    if spans is not None or not wants_traces():
        return
    try:
        # Only here: it takes as long to load as all the rest.
        from ledger.open_telemetry import Spans  # noqa: PLC0415 -- see above
    except ImportError as error:
        raise SettingsError(
            "OTEL_TRACES_EXPORTER or OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, and "
            "OpenTelemetry is not installed: pip install 'ledger[tracing]', or unset them"
        ) from error
    spans = Spans()


def finish_tracing() -> None:
    """Export what waits before the process ends; a collector that is away hardly delays that."""
    if spans is not None:
        spans.flush(within=FLUSH_SECONDS)
