"""Writes api_schema/sql.md: the public views, as a migrated database describes them.

Run `make sql-schema` after a change of a view.
"""

import sys
from pathlib import Path

import psycopg

from ledger import schema
from ledger.projection.store import VIEWS
from tests.support.addresses import database_of
from tests.support.postgres import new_database, running_server

PATH = Path(__file__).parents[2] / "api_schema" / "sql.md"

_COLUMNS = """
SELECT
    a.attname,
    format_type(a.atttypid, a.atttypmod),
    col_description(a.attrelid, a.attnum),
    obj_description(a.attrelid, 'pg_class')
FROM pg_attribute a
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

_HEAD = """\
# The public views

The views of the schema `ledger` are a contract, as HTTP is: they survive every rebuild and update,
views may be built on them, and a column is only ever added. The role `ledger_reader` may read them
and nothing else: `GRANT ledger_reader TO your_login`. Columns that depend on the time, such as
`is_overdue`, are those of the moment of the query. Times are `timestamptz`.

This file is generated from the database by `make sql-schema`.
"""


def sql_document(url: str) -> str:
    """Describe the public views of a migrated database in Markdown."""
    parts = [_HEAD]
    with psycopg.connect(url) as connection:
        for view in sorted(VIEWS):
            rows = connection.execute(_COLUMNS, (f"ledger.{view}",)).fetchall()
            parts.append(f"\n## `ledger.{view}`\n\n{rows[0][3]}\n")
            parts.append("\n| Column | Type | Meaning |\n| --- | --- | --- |\n")
            parts += [f"| `{name}` | `{kind}` | {words} |\n" for name, kind, words, _ in rows]
    return "".join(parts)


def main() -> None:
    """Write the file, from a database of its own."""
    with running_server() as server, new_database(server) as name:
        schema.migrate(database_of(server, name))
        PATH.write_text(sql_document(database_of(server, name)), encoding="utf-8")
    sys.stdout.write(f"{PATH} written\n")


if __name__ == "__main__":
    main()
