"""Logging to stderr: readable lines on a terminal, JSON everywhere else."""

import logging
import sys

import structlog


class _OwnLines(logging.Handler):
    """Writes the records of libraries as lines like our own."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; never raises, because callers of a logger do not expect it."""
        try:
            log = structlog.get_logger(record.name)
            log.log(record.levelno, record.getMessage(), exc_info=record.exc_info)
        except Exception:  # noqa: BLE001 -- like every handler of the standard library
            self.handleError(record)


def configure_logging(*, level: int = logging.INFO) -> None:
    """Set up logging in this process: our lines from `level` on, libraries' from warnings on."""
    logging.basicConfig(handlers=[_OwnLines()], level=logging.WARNING, force=True)
    # The pool logs each attempt to reconnect; a request that fails meanwhile is logged by us.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
