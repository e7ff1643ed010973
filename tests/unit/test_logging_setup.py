"""Lines of the log: their form, their level, the request that caused them; libraries' as ours."""

import json
import subprocess
import sys
from contextvars import Context

import pytest

from ledger.errors import SettingsError
from ledger.logging_setup import follow_request, request_id
from ledger.settings import Settings

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"

# Like a worker, which sets up logging first, and then makes its routes and their description.
_WORKER = """
import logging
from ledger.logging_setup import configure_logging
from ledger.settings import Settings
configure_logging(Settings.from_environment())
from ledger.api.openapi.document import document
document()
logging.getLogger("uvicorn.error").error("tried %s", "this", exc_info=ValueError("why"))
logging.getLogger("some.library").warning("%d", "no number")
logging.getLogger("some.library").info("chatter")
print("went on")
"""

_LINES = """
import structlog
from ledger.logging_setup import configure_logging, follow_request
from ledger.settings import Settings
configure_logging(Settings.from_environment())
log = structlog.get_logger("some")
log.info("before")
follow_request([(b"traceparent", b"%s")])
log.warning("failed", path="/x\\x1b[2J", name="some\\nfake line")
"""

_FAULT = """
import structlog
from ledger.logging_setup import configure_logging
from ledger.settings import Settings
configure_logging(Settings.from_environment())
try:
    raise ValueError("sent: \\x1b[2J")
except ValueError:
    structlog.get_logger("some").exception("failed")
"""


def _run(code: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={f"LEDGER_{name.upper()}": text for name, text in settings.items()},
    )


@pytest.mark.slow
def test_a_librarys_line_is_one_of_ours_and_never_raises() -> None:
    done = _run(_WORKER)
    assert done.stdout == "went on\n", done.stderr
    line = json.loads(done.stderr.splitlines()[0])
    assert (line["event"], line["level"]) == ("message of a library", "error")
    assert (line["library"], line["message"]) == ("uvicorn.error", "tried this")
    assert "ValueError: why" in line["exception"]
    assert "chatter" not in done.stderr


@pytest.mark.slow
def test_lines_are_json_and_name_their_request() -> None:
    first, second = map(json.loads, _run(_LINES % PARENT).stderr.splitlines())
    assert (first["event"], first["level"]) == ("before", "info")
    assert "request_id" not in first
    assert (second["event"], second["request_id"]) == ("failed", TRACE)


@pytest.mark.slow
def test_lines_for_people_are_one_line_each_whatever_strangers_sent() -> None:
    lines = _run(_LINES % PARENT, log_format="text").stderr.splitlines()
    assert len(lines) == 2
    assert "before" in lines[0]
    assert TRACE in lines[1]
    assert "\x1b" not in lines[1]


@pytest.mark.slow
def test_a_traceback_for_people_has_its_lines_and_no_control_character() -> None:
    said = _run(_FAULT, log_format="text").stderr
    assert "ValueError: sent: \\x1b[2J" in said.splitlines()
    assert "\x1b" not in said


@pytest.mark.slow
def test_a_level_leaves_out_what_is_less_grave() -> None:
    lines = _run(_LINES % PARENT, log_level="warning").stderr.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["failed"]
    assert _run(_LINES % PARENT, log_level="ERROR").stderr == ""


@pytest.mark.parametrize(("name", "text"), [("LOG_FORMAT", "xml"), ("LOG_LEVEL", "loud")])
def test_another_format_or_level_is_refused_with_what_there_is(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=rf"LEDGER_{name} must be .* or .*, not '{text}'"):
        Settings.from_environment({f"LEDGER_{name}": text})


@pytest.mark.parametrize(
    "given",
    [
        [],
        [(b"traceparent", b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01")],
        [(b"traceparent", b"00-short-00f067aa0ba902b7-01")],
        [(b"traceparent", PARENT.upper().encode())],
        [(b"traceparent", PARENT.encode())] * 2,
    ],
)
def test_a_request_without_a_valid_trace_has_an_id_that_stays(
    given: list[tuple[bytes, bytes]],
) -> None:
    made = Context().run(_twice, given)
    assert made[0] == made[1] is not None
    assert len(made[0] or "") == len(TRACE)
    assert made[0] != TRACE
    assert request_id() is None


def _twice(headers: list[tuple[bytes, bytes]]) -> tuple[str | None, str | None]:
    follow_request(headers)
    return request_id(), request_id()
