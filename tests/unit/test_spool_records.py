"""The format of spooled deliveries: damage costs the record that it hits, and no other."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ledger.spool.records import HEAD_BYTES, MAGIC, Damage, Record, encode, scan

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

times = st.integers(0, 2**52).map(lambda us: EPOCH + timedelta(microseconds=us))
bodies = st.binary(max_size=60) | st.sampled_from([b"", MAGIC, b"x" * 300])
deliveries = st.lists(st.tuples(times, bodies), min_size=1, max_size=6)
Deliveries = list[tuple[datetime, bytes]]
zeros = st.integers(0, 100).map(bytes)


def written(given_deliveries: Deliveries) -> bytes:
    return b"".join(encode(*each) for each in given_deliveries)


def records(content: bytes) -> Deliveries:
    return [(each.received_at, each.body) for each in scan(content) if isinstance(each, Record)]


def damage(content: bytes) -> list[Damage]:
    return [each for each in scan(content) if isinstance(each, Damage)]


@given(deliveries, zeros)
def test_what_was_written_is_read_again(some: Deliveries, rest: bytes) -> None:
    content = written(some) + rest
    assert records(content) == some
    assert damage(content) == []
    ends = [each.end for each in scan(content) if isinstance(each, Record)]
    for number, end in enumerate(ends):
        after = [each.body for each in scan(content, end) if isinstance(each, Record)]
        assert after == [body for _, body in some[number + 1 :]]


@given(deliveries, zeros, st.data())
def test_a_torn_tail_costs_the_record_that_was_not_finished(
    some: Deliveries, rest: bytes, data: st.DataObject
) -> None:
    whole = written(some)
    torn = written([some[-1]])
    length = data.draw(st.integers(0, len(torn) - 1))
    content = whole + torn[:length] + rest
    found = records(content)
    assert found[: len(some)] == some
    # A body that ends in zeros may be whole although it was not written to its end.
    assert found[len(some) :] in ([], [some[-1]])
    assert all(each.is_last for each in damage(content))
    if torn[:length].strip(b"\0") and len(found) == len(some):
        assert damage(content)


@given(deliveries, zeros, st.data())
def test_a_damaged_byte_costs_the_record_that_it_is_in(
    some: Deliveries, rest: bytes, data: st.DataObject
) -> None:
    content = bytearray(written(some) + rest)
    hit = data.draw(st.integers(0, len(some) - 1))
    begin = len(written(some[:hit]))
    at = begin + data.draw(st.integers(0, HEAD_BYTES + len(some[hit][1]) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    assert records(bytes(content)) == some[:hit] + some[hit + 1 :]
    [found] = damage(bytes(content))
    assert found.begin == begin
    assert found.is_last == (hit == len(some) - 1)


def test_a_record_within_a_body_is_no_record() -> None:
    inner = encode(EPOCH, b"inner")
    content = bytearray(encode(EPOCH, b"before " + inner) + encode(EPOCH, b"after"))
    assert [body for _, body in records(bytes(content))] == [b"before " + inner, b"after"]
    content[HEAD_BYTES] ^= 1
    assert [body for _, body in records(bytes(content))] == [b"after"]
