"""Events as rows of Parquet. The only module that imports pyarrow, which is an extra."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

from ledger.errors import ArchiveDamageError, ArchiveError
from ledger.seals.leaf import Leaf

ROWS = 10_000
"""Rows of a row group at the most: what is held in memory, together with `BYTES`."""

BYTES = 8 * 1024 * 1024
"""Bytes of bodies after which a row group ends; the last body may go beyond."""

READ_AT_ONCE = 1_000
"""Rows of a row group that are decoded at a time; fewer where they are long."""

READ_BYTES = 2 * 1024 * 1024


class ArchivedRow(NamedTuple):
    """A row of an archive, in the order of its columns.

    Times are microseconds since 1970 (UTC). The first nine columns are what is sealed; `body` and
    `erased_at` are what the log held when the archive was written, of which one is null.
    """

    position: int
    received_at: int
    event_time: int | None
    source: str
    lab_id: str
    bill_id: str
    event_type: str
    digest: bytes
    body_sha256: bytes
    body: bytes | None
    erased_at: int | None
    leaf_hash: bytes

    @property
    def leaf(self) -> bytes:
        """The bytes that are sealed."""
        return Leaf.of_row(self).to_bytes()


def require() -> None:
    """Raise `ArchiveError` if pyarrow is not installed."""
    _pyarrow()


class RowWriter:
    """Writes rows to a file, a row group at a time."""

    def __init__(self, file: BinaryIO) -> None:
        self._arrow, parquet = _pyarrow()
        self._schema = _schema(self._arrow)
        self._rows: list[ArchivedRow] = []
        self._size = 0
        self._writer = parquet.ParquetWriter(
            file,
            self._schema,
            compression="zstd",
            use_dictionary=["source", "lab_id", "event_type"],
            write_statistics=["position", "received_at", "event_time", "lab_id", "event_type"],
            write_page_checksum=True,
        )

    def write(self, row: ArchivedRow) -> None:
        """Add a row."""
        self._rows.append(row)
        self._size += len(row.body or b"")
        if len(self._rows) == ROWS or self._size >= BYTES:
            self._write_group()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        """Write what is left and the end of the file; after an error, let go of it."""
        if kind is None:
            self._write_group()
            self._writer.close()
        else:
            with suppress(Exception):
                self._writer.close()
            self._writer.is_open = False  # else its destructor tries again

    def _write_group(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [
                self._arrow.array(column, field.type)
                for column, field in zip(columns, self._schema, strict=True)
            ]
            table = self._arrow.Table.from_arrays(arrays, schema=self._schema)
            self._writer.write_table(table, row_group_size=ROWS)
            self._rows, self._size = [], 0


def read_rows(path: Path, first: int) -> Iterator[ArchivedRow]:
    """Yield the rows of a file whose first position is `first`.

    Raises `ArchiveDamageError`, which names the first position that cannot be read.
    """
    arrow, parquet = _pyarrow()
    position = first
    with (
        _readable(arrow, path) as damage,
        parquet.ParquetFile(path, page_checksum_verification=True) as file,
    ):
        if not file.schema_arrow.equals(_schema(arrow)):
            raise ArchiveDamageError(f"{path} has other columns than an archive of Ledger")
        damage.position = first
        for group in range(file.num_row_groups):
            size = _rows_at_once(file.metadata.row_group(group))
            for batch in file.iter_batches(batch_size=size, row_groups=[group]):
                columns = [_values(arrow, column) for column in batch.columns]
                for row in zip(*columns, strict=True):
                    yield ArchivedRow._make(row)
                    position += 1
                    damage.position = position


def _rows_at_once(group: Any) -> int:  # noqa: ANN401 -- a module without types
    fitting: int = group.num_rows * READ_BYTES // max(group.total_byte_size, 1)
    return max(1, min(fitting, READ_AT_ONCE))


class _Damage:
    position: int | None = None


@contextmanager
def _readable(arrow: Any, path: Path) -> Iterator[_Damage]:  # noqa: ANN401 -- a module without types
    damage = _Damage()
    try:
        yield damage
    except FileNotFoundError as error:
        raise ArchiveDamageError(f"{path} is missing") from error
    except (OSError, arrow.ArrowException, OverflowError, UnicodeError) as error:
        words = " ".join(str(error).split())
        where = "" if damage.position is None else f"position {damage.position} of "
        raise ArchiveDamageError(f"{where}{path} cannot be read: {words}") from error


def _values(arrow: Any, column: Any) -> list[Any]:  # noqa: ANN401 -- a module without types
    if arrow.types.is_timestamp(column.type):
        column = column.cast(arrow.int64())
    values: list[Any] = column.to_pylist()
    return values


def _schema(arrow: Any) -> Any:  # noqa: ANN401 -- a module without types
    time, hashed = arrow.timestamp("us", "UTC"), arrow.binary(32)
    return arrow.schema(
        [
            arrow.field("position", arrow.int64(), nullable=False),
            arrow.field("received_at", time, nullable=False),
            arrow.field("event_time", time),
            arrow.field("source", arrow.string(), nullable=False),
            arrow.field("lab_id", arrow.string(), nullable=False),
            arrow.field("bill_id", arrow.string(), nullable=False),
            arrow.field("event_type", arrow.string(), nullable=False),
            arrow.field("digest", hashed, nullable=False),
            arrow.field("body_sha256", hashed, nullable=False),
            arrow.field("body", arrow.binary()),
            arrow.field("erased_at", time),
            arrow.field("leaf_hash", hashed, nullable=False),
        ]
    )


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise ArchiveError(
            "archives need pyarrow, which is not installed: pip install 'ledger[archive]'"
        ) from error
