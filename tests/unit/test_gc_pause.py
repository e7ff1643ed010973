"""The garbage collector rests while a batch is made, and not longer."""

import gc

import pytest

from ledger.projection.gc_pause import gc_paused


@gc_paused()
def fail() -> None:
    with gc_paused():
        assert not gc.isenabled()
    assert not gc.isenabled()
    raise ZeroDivisionError


def test_it_rests_within_and_works_again_after_an_error() -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fail()
        assert gc.isenabled()


def test_who_has_stopped_it_finds_it_stopped() -> None:
    gc.disable()
    try:
        with gc_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
