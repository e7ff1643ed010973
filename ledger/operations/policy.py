"""What the desk's questions depend on beside the state: what is subscribed, when one retries."""

from datetime import timedelta

from msgspec import Struct

from ledger.model.missing_events import retry_budget
from ledger.settings import Settings


class Policy(Struct, frozen=True):
    """`events` are the types subscribed where nothing else was said of a lab."""

    events: tuple[str, ...]
    retry_interval: timedelta
    retry_count: int
    budget: timedelta
    ask_again_after: timedelta

    @classmethod
    def of(cls, settings: Settings) -> "Policy":
        """Take them from the settings."""
        return cls(
            events=settings.events,
            retry_interval=timedelta(seconds=settings.retry_interval),
            retry_count=settings.retry_count,
            budget=retry_budget(
                interval=settings.retry_interval,
                count=settings.retry_count,
                timeout=settings.retry_timeout,
            ),
            ask_again_after=timedelta(seconds=settings.ask_again_after),
        )
