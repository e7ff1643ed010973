"""Writes a command's document to standard output or to a file, complete or not at all."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from rich.console import Console

from ledger.errors import LedgerError
from ledger.operations.render import PLAIN, Screen


def check_writable(output: Path | None) -> None:
    """Raise `LedgerError` if the file cannot be written; called before anything is changed."""
    if output is not None:
        unfinished = _unfinished(output)
        try:
            unfinished.open("wb").close()
        except OSError as error:
            raise _failure(output, error) from error
        unfinished.unlink()


@contextmanager
def written(output: Path | None) -> Iterator[tuple[BinaryIO, Screen]]:
    """Yield a file to write to, and the screen for which text is laid out.

    The file gets its name when it is complete. Raises `LedgerError` if it cannot be written.
    """
    if output is None:
        screen = PLAIN
        if sys.stdout.isatty():
            colour = not Console().no_color  # rich reads NO_COLOR
            screen = Screen(width=shutil.get_terminal_size().columns, colour=colour)
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
