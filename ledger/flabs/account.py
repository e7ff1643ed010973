"""Looks at the account: logs in, lists the labs, and keeps how that ended."""

from datetime import UTC, datetime

from psycopg import Connection

from ledger.errors import FlabsError
from ledger.flabs.answers import AccountLab
from ledger.flabs.client import FlabsClient
from ledger.operations import flabs_account
from ledger.settings import Settings


def look(connection: Connection, settings: Settings, client: FlabsClient) -> list[AccountLab]:
    """Return the labs of the account, and keep them; or why there are none, and raise.

    Raises `FlabsError`.
    """
    account = settings.flabs_client_id
    try:
        labs = client.labs()
    except FlabsError as error:
        flabs_account.note_failure(connection, account, error.brief, datetime.now(UTC))
        raise
    named = [(lab.lab_id, lab.name) for lab in labs]
    flabs_account.note_labs(connection, account, named, datetime.now(UTC))
    return labs
