"""What to alert about labs: each silence once, and that it ended."""

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

import msgspec
from psycopg import Connection

from ledger.model.silence import Hearing
from ledger.operations.alerts.wording import Subject
from ledger.operations.render.words import count

_NOT_TAKEN_BACK = """
SELECT s.subject
FROM ledger.alert_subject s
WHERE
    s.kind = 'silence'
    AND NOT EXISTS (
        SELECT
        FROM ledger.alert_subject e
        WHERE e.kind = 'heard_again' AND e.subject = s.subject
    )
"""

_OF_MANY = """
SELECT subject
FROM ledger.alert_subject
WHERE kind = 'silence_of_many' AND alerted_at > %s
ORDER BY alerted_at DESC
LIMIT 1
"""

LONGEST_HOLIDAY = timedelta(days=4)
"""How long the silence of many labs is one and the same."""


def silence_subjects(
    connection: Connection, hearings: Mapping[str, Hearing], now: datetime
) -> Iterator[Subject]:
    """Yield the silences there are, those alerted before included, and those that ended."""
    for lab_id, hearing in hearings.items():
        if hearing.state == "silent":
            words = f"lab {lab_id}: last heard of {hearing.since:%F %T} UTC; {hearing.odds}"
            yield Subject("silence", _key(lab_id, hearing.since), lab_id, words)
    yield from _of_many(connection, hearings, now)
    labs = {_digest(lab_id): lab_id for lab_id in hearings}
    for (key,) in connection.execute(_NOT_TAKEN_BACK).fetchall():
        digest, since = msgspec.json.decode(key, type=tuple[str, datetime])
        lab_id = labs.get(digest, "")
        heard = hearings.get(lab_id)
        if heard and heard.since > since:
            words = f"lab {lab_id}: silent since {since:%F %T}, heard of {heard.since:%F %T} UTC"
            yield Subject("heard_again", key, lab_id, words)


def _of_many(
    connection: Connection, hearings: Mapping[str, Hearing], now: datetime
) -> Iterator[Subject]:
    labs = [lab_id for lab_id, hearing in hearings.items() if hearing.with_others]
    quiet = [lab_id for lab_id in labs if hearings[lab_id].state != "silent"]
    if quiet:
        row = connection.execute(_OF_MANY, (now - LONGEST_HOLIDAY,)).fetchone()
        since = min(hearings[lab_id].since for lab_id in labs)
        words = f"{count(len(labs), 'lab')}, the first last heard of {since:%F %T} UTC: "
        words += ", ".join(sorted(labs))
        yield Subject("silence_of_many", row[0] if row else f"{now:%F}", None, words)


def _key(lab_id: str, since: datetime) -> str:
    # An id may be too long for a key, which must be readable when the lab is heard of again.
    return msgspec.json.encode((_digest(lab_id), since)).decode()


def _digest(lab_id: str) -> str:
    return hashlib.sha256(lab_id.encode(errors="surrogatepass")).hexdigest()[:32]
