"""Where a command writes a document: to a file, whole or not at all, or to standard output."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from ledger.errors import LedgerError

if TYPE_CHECKING:
    from ledger.desk.render import Screen


@contextmanager
def written(output: Path | None) -> Iterator[tuple[BinaryIO, "Screen"]]:
    """Give a file to write to, and what text is to be written for.

    A file takes its name when all is written. Raises `LedgerError` if it cannot be.
    """
    from ledger.desk.render import PLAIN, Screen

    if output is None:
        screen = PLAIN
        if sys.stdout.isatty():
            screen = Screen(width=shutil.get_terminal_size().columns, colour=True)
        yield cast("BinaryIO", sys.stdout.buffer), screen
        sys.stdout.buffer.flush()
        return
    unfinished = output.with_name(f".{output.name}.part")
    try:
        with unfinished.open("wb") as file:
            yield file, PLAIN
        unfinished.replace(output)
    except OSError as error:
        raise LedgerError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
