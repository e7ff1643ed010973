"""The lines of libraries look like our own."""

import json
import subprocess
import sys

import pytest

# Like a worker, which sets up logging first, and then makes its routes and their description.
_WORKER = """
import logging
from ledger.logging_setup import configure_logging
configure_logging()
from ledger.api.openapi.document import document
document()
logging.getLogger("uvicorn.error").error("tried %s", "this", exc_info=ValueError("why"))
logging.getLogger("some.library").warning("%d", "no number")
logging.getLogger("some.library").info("chatter")
print("went on")
"""


@pytest.mark.slow
def test_a_librarys_line_is_one_of_ours_and_never_raises() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WORKER], capture_output=True, text=True, check=False
    )
    assert done.stdout == "went on\n", done.stderr
    line = json.loads(done.stderr.splitlines()[0])
    assert (line["event"], line["level"]) == ("tried this", "error")
    assert "ValueError: why" in line["exception"]
    assert "chatter" not in done.stderr
