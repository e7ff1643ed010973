"""Pages of lists."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from ledger.api.http.parameters import write_cursor
from ledger.api.http.responses import page

T = TypeVar("T")


def first_page(
    found: Sequence[T],
    limit: int,
    write: Callable[[T], bytes],
    key: Callable[[T], Sequence[int | str]],
) -> bytes:
    """Write a page of at most `limit` items.

    One item more than `limit` shows that there is a next page; its cursor is the `key` of the last
    item written.
    """
    shown = found[:limit]
    following = write_cursor(*key(shown[-1])) if len(found) > limit else None
    return page(map(write, shown), following)
