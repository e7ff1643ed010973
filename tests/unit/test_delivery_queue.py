"""Deliveries that wait: each is answered when its own time is over."""

from datetime import UTC, datetime

from ledger.eventlog.append import Delivery
from ledger.eventlog.delivery_queue import DeliveryQueue, Waiting


def waiting(deadline: float, *, from_spool: bool = False) -> Waiting:
    delivery = Delivery.of(b"{}", received_at=datetime(2024, 1, 1, tzinfo=UTC), source="webhook")
    return Waiting(delivery, lambda _: None, deadline, from_spool=from_spool)


def test_a_delivery_does_not_wait_for_the_longer_time_of_one_out_of_the_spool() -> None:
    queue = DeliveryQueue()
    spooled, sent = waiting(6.0, from_spool=True), waiting(2.0)
    queue.put(spooled)
    queue.put(sent)
    assert queue.take_overdue(1.0) == []
    assert queue.take_overdue(2.0) == [sent]
    assert queue.take_overdue(5.0) == []
    assert queue.take_overdue(6.0) == [spooled]
