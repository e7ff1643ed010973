"""Where a command writes a document: to a file, whole or not at all, or to standard output."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from ledger.errors import LedgerError

if TYPE_CHECKING:
    from ledger.operations.render import Screen


def check_writable(output: Path | None) -> None:
    """Raise `LedgerError` if a file cannot be written, before anything is done for its sake."""
    if output is not None:
        unfinished = _unfinished(output)
        try:
            unfinished.open("wb").close()
        except OSError as error:
            raise _failure(output, error) from error
        unfinished.unlink()


@contextmanager
def written(output: Path | None) -> Iterator[tuple[BinaryIO, "Screen"]]:
    """Give a file to write to, and what text is to be written for.

    A file takes its name when all is written. Raises `LedgerError` if it cannot be.
    """
    from ledger.operations.render import PLAIN, Screen

    if output is None:
        screen = PLAIN
        if sys.stdout.isatty():
            screen = Screen(width=shutil.get_terminal_size().columns, colour=True)
        yield cast("BinaryIO", sys.stdout.buffer), screen
        sys.stdout.buffer.flush()
        return
    unfinished = _unfinished(output)
    try:
        with unfinished.open("wb") as file:
            yield file, PLAIN
        unfinished.replace(output)
    except OSError as error:
        raise _failure(output, error) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def _unfinished(output: Path) -> Path:
    return output.with_name(f".{output.name}.part")


def _failure(output: Path, error: OSError) -> LedgerError:
    return LedgerError(f"cannot write {output}: {error.strerror or error}")
