"""Errors made of a failed program's messages, with what to do."""

from pathlib import Path
from typing import Final

from ledger.errors import EmbeddedPostgresError

PORT_IN_USE: Final = "Address already in use"
SURVIVORS: Final = "pre-existing shared memory block"
"""Part of the message while processes of a crashed server still run."""

_REMEDIES: Final = {
    PORT_IN_USE: "Another program uses the port: stop it, or choose another port.",
    SURVIVORS: "Processes of an earlier server still run: end them.",
    "No space left on device": "The disk is full: free some space and start again.",
    "Permission denied": "The server's user may not use a file or folder that is named below.",
    "Cannot allocate memory": "The machine has too little free memory.",
}
_LAST_LINES: Final = 8


def failure(what: str, said: str, log: Path | None = None) -> EmbeddedPostgresError:
    """Return an error with what failed, the program's last messages, and what to do."""
    parts = [f"{what}."]
    parts += [remedy for sign, remedy in _REMEDIES.items() if sign in said]
    lines = [line for line in said.splitlines() if line.strip()]
    parts.append("PostgreSQL said last:" if lines else "PostgreSQL said nothing.")
    text = "\n".join([" ".join(parts), *(f"  {line}" for line in lines[-_LAST_LINES:])])
    return EmbeddedPostgresError(f"{text}\nIts whole log: {log}" if log else text)
