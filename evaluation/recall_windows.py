"""Compares loss windows with the outages, second by second."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from evaluation.recall_score import Score
from evaluation.recall_truth import ATTEMPTS, INTERVAL, Truth
from ledger.operations.read_models import LossWindow, ReconciliationReport, SupportRequest

LAST_ATTEMPT = (ATTEMPTS - 1) * INTERVAL

LabSecond = tuple[str, int]


class WindowCheck:
    """Keeps the books of which windows were listed and asked for."""

    def __init__(self, truth: Truth, score: Score) -> None:
        self._truth = truth
        self._score = score
        self._heard: dict[str, list[float]] = defaultdict(list)
        self._listed: set[LabSecond] = set()
        self._asked: set[LabSecond] = set()

    def heard(self, lab_id: str, at: datetime) -> None:
        """Take note that an event of a lab was received; in order of time."""
        self._heard[lab_id].append(at.timestamp())

    def look(self, now: datetime, report: ReconciliationReport) -> None:
        """Compare the windows that are listed at a time."""
        self._listed = set(_seconds(report.loss_windows))
        differences = self._score.windows.compare(set(self._listed), set(self._by_second(now)))
        if differences:
            self._score.fault("seconds of windows", min(differences, key=str), len(differences))

    def asked(self, request: SupportRequest) -> None:
        """Compare the windows of a request with those of the ones before."""
        seconds = set(_seconds(request.loss_windows))
        if twice := seconds & self._asked:
            self._score.fault("seconds of windows asked for twice", min(twice), len(twice))
        self._asked |= seconds
        self._score.counts["windows asked for"] += len(request.loss_windows)

    def end(self) -> None:
        """Look for each event that met an outage with all attempts, and for what was not asked."""
        score = self._score
        score.counts["outages, or pieces of flapping ones"] = len(self._truth.outages)
        score.counts["seconds of loss, over all labs"] = len(self._listed)
        if self._listed != self._asked:
            left = self._listed ^ self._asked
            score.fault("seconds of windows never asked for", min(left), len(left))
        for event in self._truth.lost():
            lab_id = event.key[0]
            if event.cause != "outage":
                continue
            score.counts["events lost to outages"] += 1
            if (lab_id, event.at) in self._listed:
                continue
            heard = self._heard[lab_id]
            if not heard or heard[-1] <= event.at:
                score.counts["lost to an outage after which the lab was silent"] += 1
            elif heard[0] > event.at:  # that it sent anything then, nobody can know
                score.counts["lost to an outage before which the lab was unknown"] += 1
            else:
                score.fault("lost to an outage, and in no window", event.body)

    def _by_second(self, now: datetime) -> Iterable[LabSecond]:
        """Yield each second whose events are known lost at a time, with each lab that sends."""
        until = now.timestamp() - LAST_ATTEMPT
        for begin, end in _runs(second for second in self._truth.lost_seconds if second < until):
            for lab_id, heard in self._heard.items():
                last = bisect_left(heard, end)
                if 0 < last < len(heard):
                    yield from ((lab_id, second) for second in range(begin, end))


def _seconds(windows: Iterable[LossWindow]) -> Iterable[LabSecond]:
    for window in windows:
        begin, end = window.begin.timestamp(), window.end.timestamp()
        for lab_id in window.labs:
            yield from ((lab_id, second) for second in range(int(begin), int(end)))


def _runs(seconds: Iterable[int]) -> Iterable[tuple[int, int]]:
    begin = end = 0
    for second in seconds:
        if second != end:
            if end > begin:
                yield begin, end
            begin = second
        end = second + 1
    if end > begin:
        yield begin, end
