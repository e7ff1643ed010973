"""The options of a simulation, checked when they are created."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from ledger.errors import SimulationOptionError
from ledger.simulator.history import History, TestData
from ledger.simulator.outages import Outage, Outages, draw_outages
from ledger.simulator.plan import Faults
from ledger.simulator.sender import Route, Target

EARLIEST, LATEST = 946_684_800, 4_102_444_800
"""Unix times of 2000-01-01 and 2100-01-01: events outside are unreadable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationOptions:
    """What happens in the simulated labs, which faults occur, and where the webhooks are sent.

    One of `url`, `output` and `route` must be given. Raises SimulationOptionError for a bad value.
    """

    # What happens.
    bills: int = 100
    days: int | None = None  # to spread the bills over; None: one per 5,000 bills
    labs: int = 3
    seed: int = 1
    start: int | None = None  # Unix time, seconds; None: so that the day ends now
    test_data: TestData = "snapshot"  # a report.completed lists all tests of the bill, or its own
    # Faults: the probability for each event, 0 to 1.
    drop: float = 0.0  # all four attempts are lost on the way
    late: float = 0.0  # one to three attempts are lost on the way, the next one arrives
    duplicate: float = 0.0  # delivered again although acknowledged
    reorder: float = 0.0  # held back until later events of its bill have been sent
    lose_bills: float = 0.0  # the probability for each bill that all its events are dropped
    outage: tuple[Outage, ...] = ()  # times during which every attempt fails; only with output
    outages: int = 0  # number of further outages, drawn from the seed
    # Where it goes.
    url: str | None = None
    token: str | None = field(default=None, repr=False)  # sent as `Authorization: Bearer ...`
    output: Path | None = None  # payloads as JSON Lines instead of sending; "-": standard output
    route: Route | None = field(default=None, repr=False)  # where a sandbox's subscribers want it
    received: bool = False  # output in the form of `ledger export`, with times of reception
    truth: Path | None = None  # file for the fate of each event, JSON Lines; overwritten
    # How the sender behaves.
    rate: float = 0.0  # first attempts per second; 0: as fast as possible
    concurrency: int = 16  # concurrent deliveries
    speed: float = 1.0  # divides both times below
    retry_interval: float = 120.0  # seconds
    timeout: float = 10.0  # seconds

    def __post_init__(self) -> None:
        for option in ("bills", "labs", "concurrency", "days"):
            if (number := getattr(self, option)) is not None and number < 1:
                _refuse(option, f"takes a whole number from 1, not {number}")
        for option in ("drop", "late", "duplicate", "reorder", "lose_bills"):
            if not 0 <= getattr(self, option) <= 1:
                _refuse(option, f"takes a probability from 0 to 1, not {getattr(self, option):g}")
        for option in ("speed", "retry_interval", "timeout"):
            if not 0 < getattr(self, option) < float("inf"):
                _refuse(option, f"takes a number greater than 0, not {getattr(self, option):g}")
        if not 0 <= self.rate < float("inf"):
            _refuse(
                "rate",
                f"takes events per second, 0 for as fast as possible, not {self.rate:g}",
            )
        if self.test_data not in ("snapshot", "delta"):
            _refuse("test_data", f"takes 'snapshot' or 'delta', not {self.test_data!r}")
        self._check_way()
        self._check_file()
        self._check_start()

    def _check_way(self) -> None:
        if self.route is not None and (self.url is not None or self.output is not None):
            _refuse("route", "goes with neither url nor output")
        if self.route is None and (self.url is None) == (self.output is None):
            _refuse(
                "url",
                "or output: give one of them, the address to send to or the file to write to",
            )
        if self.url is not None and not _is_web_address(self.url):
            # The value is not shown: its path may hold a secret.
            _refuse(
                "url",
                "takes an address that begins with http:// or https://, such as "
                "http://127.0.0.1:8000/webhooks/flabs",
            )
        if self.token is not None and not _fits_header(self.token):
            _refuse("token", "takes printable ASCII characters without spaces")
        if self.truth is not None and self.truth == self.output:
            _refuse("truth", "takes another file than output")

    def _check_file(self) -> None:
        if self.outages < 0:
            _refuse("outages", f"takes a whole number from 0, not {self.outages}")
        for each in self.outage:
            if each.begin >= each.end:
                _refuse("outage", "takes FROM..TO with FROM before TO")
        # A receiver over HTTP has outages and times of reception of its own.
        for option in ("outage", "outages", "received"):
            if getattr(self, option) and self.output is None:
                _refuse(option, "goes with output only")

    def _check_start(self) -> None:
        if self.start is None:
            return
        end = self.history().end
        if self.start < EARLIEST or end > LATEST:
            _refuse("start", "takes a time such that the day lies between the years 2000 and 2100")

    def history(self) -> History:
        """Return the parameters that determine the events. `start` must be set."""
        return History(
            seed=self.seed,
            start=self.start or 0,
            bills=self.bills,
            labs=self.labs,
            test_data=self.test_data,
            days=self.days,
        )

    def routed(self) -> Route:
        """Return where events go. Only for a simulation that sends them."""
        if self.route is not None:
            return self.route
        target = Target(self.url or "", self.token)
        return lambda _: (target,)

    def all_outages(self) -> Outages:
        """Return the given outages and the drawn ones. `start` must be set."""
        return Outages([*self.outage, *draw_outages(self.history(), self.outages)])

    def faults(self) -> Faults:
        """Return the parameters that determine the fates."""
        return Faults(
            drop=self.drop,
            late=self.late,
            duplicate=self.duplicate,
            reorder=self.reorder,
            lose_bills=self.lose_bills,
        )


def parse_outage(text: str) -> Outage:
    """Parse an outage, two times with .. between them. Raises SimulationOptionError."""
    begin, dots, end = text.partition("..")
    if not dots:
        _refuse("outage", f"takes two times like 2024-01-20T07:00..2024-01-20T08:00, not {text}")
    return Outage(parse_start(begin, option="outage"), parse_start(end, option="outage"))


def parse_start(text: str, *, option: str = "start") -> int:
    """Parse a day (its midnight, UTC) or an RFC 3339 time into Unix time in whole seconds.

    A time without a zone is taken as UTC. Raises SimulationOptionError.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SimulationOptionError(
            option, f"takes a day like 2024-01-20 or a time like 2024-01-20T07:00:00Z, not {text}"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp())


def _refuse(option: str, takes: str) -> None:
    raise SimulationOptionError(option, takes)


def _is_web_address(text: str) -> bool:
    try:
        url = httpx.URL(text)
        # Each of the two parsers accepts some addresses that the other refuses.
        host = urlsplit(text).hostname
    except (httpx.InvalidURL, ValueError):
        return False
    return url.scheme in ("http", "https") and url.host != "" and host is not None


def _fits_header(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text and text != ""
