"""Logging to stderr, one line an event: readable on a terminal, JSON everywhere else.

`ledger/log_events.py` lists the events. The lines of libraries have the same form, as one event.
"""

import functools
import logging
import re
import secrets
import sys
from collections.abc import Iterable
from contextvars import ContextVar

import structlog

from ledger.log_events import OF_A_LIBRARY
from ledger.settings import Settings

_LEVELS = logging.getLevelNamesMapping()

Headers = Iterable[tuple[bytes, bytes]]
"""As ASGI has them: names in lower case."""

_REQUEST: ContextVar["_Request | None"] = ContextVar("request", default=None)
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def configure_logging(settings: Settings | None = None) -> None:
    """Set up logging in this process; without settings, by the defaults.

    Our lines come from the level of the settings on, libraries' from warnings on at most.
    """
    chosen = settings or Settings()
    level = _LEVELS[chosen.log_level.upper()]
    logging.basicConfig(handlers=[_OwnLines()], level=max(level, logging.WARNING), force=True)
    # The pool logs each attempt to reconnect; a request that fails meanwhile is logged by us.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    for_people = chosen.log_format == "text" or (
        chosen.log_format == "auto" and sys.stderr.isatty()
    )
    structlog.configure(
        processors=[
            _add_request,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *(_for_people() if for_people else [structlog.processors.JSONRenderer()]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def show_lines_of(library: str, settings: Settings) -> None:
    """Let a library's lines through from information on, if the settings let ours."""
    level = max(_LEVELS[settings.log_level.upper()], logging.INFO)
    logging.getLogger(library).setLevel(level)


def follow_request(headers: Headers) -> None:
    """Name a request in each line of this task and of what it starts.

    Costs nearly nothing for a request about which nothing is logged.
    """
    _REQUEST.set(_Request(headers))


def request_id() -> str | None:
    """Return what names this task's request in the log, None if it has none.

    It is the trace of the header `traceparent`, or else random: 32 hexadecimal digits.
    """
    request = _REQUEST.get()
    return request.id if request else None


class _Request:
    def __init__(self, headers: Headers) -> None:
        self._headers = headers

    @functools.cached_property
    def id(self) -> str:
        given = [value for name, value in self._headers if name == b"traceparent"]
        trace = _TRACEPARENT.fullmatch(given[0]) if len(given) == 1 else None
        return trace[1].decode() if trace else secrets.token_hex(16)


class _OwnLines(logging.Handler):
    """Writes the records of libraries as lines like our own."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; never raises, because callers of a logger do not expect it."""
        try:
            log = structlog.get_logger(record.name)
            log.log(
                record.levelno,
                OF_A_LIBRARY,
                library=record.name,
                message=record.getMessage(),
                exc_info=record.exc_info,
            )
        except Exception:  # noqa: BLE001 -- like every handler of the standard library
            self.handleError(record)


def _add_request(
    _logger: object, _name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    if (name := request_id()) is not None:
        event["request_id"] = name
    return event


def _for_people() -> list[structlog.typing.Processor]:
    return [_escape, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]


def _escape(
    _logger: object, _name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Keep what strangers send, such as a path, from moving the cursor or making a line."""
    for name, value in event.items():
        if isinstance(value, str):
            # A traceback has lines, and shows an error that may quote what was sent.
            lines = value.split("\n") if name == "exception" else [value]
            event[name] = "\n".join(
                line if line.isprintable() else ascii(line)[1:-1] for line in lines
            )
    return event
