"""The events of the log are those that are documented, and no line shows a secret or a body."""

from docs.log_events import logged
from ledger.log_events import EVENTS, OF_A_LIBRARY


def test_each_event_is_spelled_out_where_it_is_logged() -> None:
    unclear = [call.place for call in logged() if call.event is None]
    assert unclear == [], "write the event as a literal, and what changes as a field"


def test_each_event_is_documented_and_each_documented_one_is_logged() -> None:
    code = {call.event for call in logged()} | {OF_A_LIBRARY}
    assert code == set(EVENTS), "change ledger/log_events.py, then `make reference`"


def test_no_field_is_named_like_a_secret_or_a_body() -> None:
    # `by_key` and `key` are ids of API keys; `token` says only what is wrong with it.
    suspicious = {"authorization", "body", "headers", "password", "payload", "secret", "url"}
    wrong = [call.place for call in logged() if suspicious & set(call.fields)]
    assert wrong == []
