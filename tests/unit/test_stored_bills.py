"""What is stored of a bill, and read again."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ledger.model.bill import BillSummary, Report
from ledger.model.event import RANK
from ledger.projection.rows import encode
from ledger.projection.stored import (
    BillColumns,
    read_report,
    read_reports,
    read_summary,
    stored_report,
    stored_summary,
)

texts = st.sampled_from(
    ["", "completed", "null", "1", "{", "\0", "\ud800", 'é\U0001f600"\\', "[1,2]"]
)
# As an event may say.
event_times = st.integers(946_684_800, 4_133_980_799).map(
    lambda seconds: datetime.fromtimestamp(seconds, UTC)
)
receptions = st.datetimes(timezones=st.just(UTC))
counts = st.integers(0, 100_000)
summaries = st.builds(
    BillSummary,
    lab_id=st.just("L"),
    bill_id=st.just("B"),
    integrator_id=st.none() | st.just("one"),
    state=st.sampled_from(["open", "completed", "reopened", "deleted"]),
    flabs_status=st.none() | texts,
    created_at=st.none() | event_times,
    completed_at=st.none() | event_times,
    deleted_at=st.none() | event_times,
    report_url=st.none() | texts,
    reports_total=counts,
    reports_completed=counts,
    findings=st.lists(st.sampled_from(["integrator_changed", "event_after_deletion"])),
    events=counts,
    first_received_at=receptions,
    last_received_at=receptions,
    last_event_at=event_times,
    position=st.integers(1, 2**63 - 1),
)
reports = st.builds(
    Report, st.just("T"), st.none() | texts, completed_at=st.none(), evidence=st.none()
) | st.builds(
    Report,
    st.just("T"),
    st.sampled_from(["completed", " Completed", "COMPLETED\u3000"]),
    event_times,
    st.sampled_from(list(RANK)),
)


def columns(bill: BillSummary, summary: bytes) -> BillColumns:
    return BillColumns(
        bill.lab_id, bill.bill_id, bill.state, bill.integrator_id, bill.position, summary
    )


@given(bill=summaries)
def test_a_summary_is_read_as_it_was_stored(bill: BillSummary) -> None:
    assert read_summary(columns(bill, encode(stored_summary(bill)))) == bill


@given(some=st.lists(reports, max_size=4))
def test_reports_are_read_as_they_were_stored(some: list[Report]) -> None:
    entries = [stored_report(report) for report in some]
    assert read_reports(encode(entries)) == some
    assert [read_report(encode(entry)) for entry in entries] == some


@given(bill=summaries, some=st.lists(reports, max_size=4))
def test_what_version_3_stored_is_read(bill: BillSummary, some: list[Report]) -> None:
    assert read_summary(columns(bill, encode(bill))) == bill
    assert read_reports(encode(some)) == some
    assert [read_report(encode(report)) for report in some] == some


def test_a_completed_report_takes_few_bytes() -> None:
    report = Report("T", "completed", datetime(2024, 1, 20, tzinfo=UTC), "report.completed")
    assert encode(stored_report(report)) == b'["T",1705708800,1]'


def test_receptions_are_stored_to_the_microsecond() -> None:
    moment = datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)
    bill = BillSummary(
        "L", "B", None, "open", None, None, None, None, None, 0, 0, [], 1,
        moment - timedelta(microseconds=1), moment, datetime(2024, 1, 20, tzinfo=UTC), 1,
    )  # fmt: skip
    assert read_summary(columns(bill, encode(stored_summary(bill)))) == bill
