"""Tells of each lost event how Ledger knows of it, or why nobody but Flabs can."""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from evaluation.recall_judge import Fact
from evaluation.recall_score import Score
from evaluation.recall_truth import Sent, Truth

BEYOND = (
    "a report of a bill of which no completion came",
    "a report sent again, of a test that was reported",
    "a completion of a bill that was completed before",
    "a completion, and no event said that the bill was completed",
)
"""What the rules cannot know though it is of a bill that is known and not deleted."""


def tell_fates(
    truth: Truth,
    score: Score,
    certain: AbstractSet[Fact],
    possible: Mapping[Fact, int],
    expected: AbstractSet[str],
) -> None:
    """Count the lost events by how they are known of, and measure what is merely possible."""
    # What was shown to be certain later is no longer merely possible.
    left = Counter(
        {
            fact: min(count, len([event for event in truth.meant_by(fact) if event.cause]))
            for fact, count in possible.items()
            if fact not in certain
        }
    )
    score.possible_in_truth.listed = sum(n for fact, n in possible.items() if fact not in certain)
    score.possible_in_truth.right = left.total()
    for own in truth.bills.values():
        known = any(event.received_at for event in own)
        if not known:
            _tell_unheard(own, score, expected)
        for event in own:
            if event.cause:
                score.fates[
                    _fate(event, own, certain, left)
                    if known
                    else "of a bill of which no webhook came"
                ] += 1
                score.counts[f"lost events, cause: {event.cause}"] += 1
            score.counts["events"] += 1
    score.possible_in_truth.there = score.possible_in_truth.right + sum(
        score.fates[fate] for fate in BEYOND
    )


def _tell_unheard(own: list[Sent], score: Score, expected: AbstractSet[str]) -> None:
    score.counts["bills unheard of"] += 1
    by_window = any(event.cause == "outage" for event in own)
    by_integrator = own[0].integrator_id in expected
    known_by = {
        (True, True): "by a window and by an expectation",
        (True, False): "by a window alone",
        (False, True): "by an expectation alone",
        (False, False): "by nothing",
    }[by_window, by_integrator]
    score.counts[f"bills unheard of, known {known_by}"] += 1


def _fate(event: Sent, own: list[Sent], certain: AbstractSet[Fact], possible: Counter[Fact]) -> str:
    here = [other for other in own if other.received_at]
    before = own[: own.index(event)]
    if event.type == "bill.deleted":
        fate = "a deletion: no event tells of it"
    elif _facts(event, before) & certain:
        return "certain"
    else:
        fate = _other_fate(event, before, here, possible)
    return f"{fate}, in a loss window" if event.cause == "outage" and fate != "possible" else fate


def _other_fate(event: Sent, before: list[Sent], here: list[Sent], possible: Counter[Fact]) -> str:
    fact = Fact(*event.key, event.type, "")
    if possible[fact] > 0:
        possible[fact] -= 1
        return "possible"
    if any(other.type == "bill.deleted" for other in here):
        return "of a bill that was deleted: not wanted"
    if event.type == "report.completed":
        earlier = {t for other in before if other.type == event.type for t in other.done}
        return BEYOND[1] if event.done <= earlier else BEYOND[0]
    if event.type == "bill.completed":
        return (
            BEYOND[2] if any(other.type == event.type for other in [*before, *here]) else BEYOND[3]
        )
    return "other"


def _facts(event: Sent, before: list[Sent]) -> set[Fact]:
    """Return the facts that only this event, or the bill's first of its kind, stands for."""
    if event.type != "report.completed":
        first = all(other.type != event.type for other in before)
        return {Fact(*event.key, event.type, "")} if first else set()
    earlier = {test for other in before if other.type == event.type for test in other.done}
    return {Fact(*event.key, event.type, test) for test in event.done - earlier}
