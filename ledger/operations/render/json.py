"""The JSON formats. They are a contract: the same keys in the same order as over HTTP."""

from collections.abc import Mapping
from typing import Any, BinaryIO

import msgspec

from ledger.operations.read_models import MissingEvents, ReconciliationReport, SupportRequest

_ENCODE = msgspec.json.Encoder().encode


def write_report_document(
    report: ReconciliationReport, missing_events: MissingEvents, to: BinaryIO
) -> None:
    """Write a report as one JSON object, with a line for each missing event."""
    before = {
        "as_of": report.as_of,
        "position": report.position,
        "totals": report.totals,
        "labs": report.labs,
    }
    after = {
        "loss_windows": report.loss_windows,
        "unseen_bills": report.unseen_bills,
        "near_losses": report.near_losses,
        "silences": report.silences,
        "coverage": report.coverage,
    }
    to.write(b"{%b,\n" % _members(before) + b'"missing_events":[')
    separator = b"\n"
    for item in missing_events:
        to.write(separator + _ENCODE(item))
        separator = b",\n"
    to.write(b"],\n%b}\n" % _members(after))


def write_request_document(request: SupportRequest, to: BinaryIO) -> None:
    """Write a support request as one JSON object."""
    to.write(_ENCODE(request) + b"\n")


def _members(values: Mapping[str, Any]) -> bytes:
    return _ENCODE(values)[1:-1]
