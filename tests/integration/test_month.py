"""A small month with known truth, lived through day by day. `make recall` is the long one."""

import random
from pathlib import Path

import pytest

from evaluation.recall_month import Setup, run_month
from ledger.simulator.history import TestData

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("test_data", ["snapshot", "delta"])
@pytest.mark.parametrize(
    "seed",
    [1, 12183, random.randrange(10**6)],
    ids=["fixed", "an outage before a lab is heard of", "random"],
)
def test_a_month_finds_all_that_is_certain_and_asks_for_nothing_else(
    database_url: str, tmp_path: Path, test_data: TestData, seed: int
) -> None:
    setup = Setup(bills=300, days=3, labs=3, seed=seed, test_data=test_data, drop=0.04)
    score = run_month(database_url, setup, tmp_path)
    assert not score.faults, f"seed {seed}: {score.examples}"
    for found in (
        score.certain_by_rules,
        score.certain_in_truth,
        score.asked_by_rules,
        score.possible_by_rules,
        score.windows,
        score.unseen,
    ):
        assert (found.precision, found.recall) == (1.0, 1.0), f"seed {seed}"
    assert score.possible_in_truth.precision == 1.0, f"seed {seed}"
    # That there was something to find.
    assert score.certain_in_truth.there > 5
    assert score.counts["lines received in the end"] > 0
    assert score.certain_is_right
