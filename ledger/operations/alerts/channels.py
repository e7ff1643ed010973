"""The channels that alerts go to: Apprise's URLs, which hold secrets and are never shown.

A channel is named by its place in LEDGER_ALERT_URLS and its kind, as in `channel 2 (slack)`.
"""

import hashlib
import logging
import threading
import time
import warnings
from collections.abc import Sequence
from functools import cache
from queue import SimpleQueue
from typing import TYPE_CHECKING

from msgspec import Struct

from ledger.errors import SettingsError

if TYPE_CHECKING:
    from apprise import NotifyBase

SEND_SECONDS = 30.0
"""How long a channel may take for one alert. Apprise's own limits are between two bytes, so that a
server which sends a byte now and then would hold it for ever."""

MOST_HANGING = 3
"""Tries of a channel that may go on in vain before no more are begun: each holds a thread."""

UNKNOWN = "unknown"
"""The kind of a channel that Apprise does not understand."""

_FAILED = "it failed"
_NOT_UNDERSTOOD = "Apprise does not understand its URL"

# They would log hosts, paths and bodies, and the path of a chat's webhook is its secret.
_TALKATIVE = ("apprise", "requests", "urllib3")

_hanging: dict[str, list[threading.Thread]] = {}


class Channel(Struct, frozen=True):
    """One URL: its place in the list from 1 on, and its kind, such as `slack` or `mailto`."""

    number: int
    kind: str
    url: str

    def __repr__(self) -> str:
        """Name it as logs may; the URL is a secret."""
        return f"channel {self.number} ({self.kind})"

    __str__ = __repr__


def check_channels(urls: Sequence[str]) -> None:
    """Raise `SettingsError` naming the first URL that Apprise does not understand, by its place."""
    for number, url in enumerate(urls, start=1):
        if _understood(url) is None:
            raise SettingsError(
                f"LEDGER_ALERT_URLS: URL {number} of {len(urls)} is none that Apprise understands "
                "(not shown, for it may hold a secret). It must look like "
                "mailto://user:password@host or slack://token/#channel: "
                "see https://appriseit.com/services/"
            )


def channel_id(url: str) -> str:
    """Return what the database knows a channel by."""
    return hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()


def channel_of(number: int, url: str) -> Channel:
    """Name a channel."""
    service = _understood(url)
    return Channel(number, service.schema if service else UNKNOWN, url)


class Attempt:
    """One try to send one alert on one channel, begun at once in a thread of its own."""

    def __init__(
        self, channel: Channel, title: str, body: str, ended: "SimpleQueue[Attempt]"
    ) -> None:
        self.channel = channel
        self.deadline = time.monotonic() + SEND_SECONDS
        self.failure: str | None = None
        """Why it failed, or None if the alert was sent; true once it stands in `ended`."""

        self._ended = ended
        # A daemon: what hangs must not keep the process from ending.
        self._thread = threading.Thread(
            target=self._run, args=(title, body), name=f"alert {channel}", daemon=True
        )
        hanging = [thread for thread in _hanging.get(channel.url, []) if thread.is_alive()]
        _hanging[channel.url] = hanging
        if len(hanging) < MOST_HANGING:
            self._thread.start()
        else:
            self.failure = f"{len(hanging)} earlier tries have not ended yet"
            ended.put(self)

    def give_up(self) -> str:
        """Wait no longer, and say why. It may still be sent; then the next try tells it again."""
        _hanging[self.channel.url].append(self._thread)
        return f"it did not end within {SEND_SECONDS:g} s"

    def _run(self, title: str, body: str) -> None:
        try:
            self.failure = _send(self.channel.url, title, body)
        except Exception as error:  # noqa: BLE001 -- whatever a plugin raises is one failed try
            # Its words may hold the URL; its type does not.
            self.failure = f"{_FAILED} with {type(error).__name__}"
        self._ended.put(self)


def _send(url: str, title: str, body: str) -> str | None:
    """Send with an Apprise object of its own; some log in, and out when they are let go."""
    import apprise  # noqa: PLC0415 -- see `_load`

    service = _understood(url)
    if service is None:
        return _NOT_UNDERSTOOD
    if service.overflow_mode is apprise.OverflowMode.UPSTREAM:
        # A text that is too long would be refused each time; its end matters least.
        service.overflow_mode = apprise.OverflowMode.TRUNCATE
    result = apprise.Apprise(service, asset=service.asset).notify(
        body,
        title=title,
        notify_type=apprise.NotifyType.WARNING,
        # Said to be plain, it is escaped for those that take HTML or Markdown.
        body_format=apprise.NotifyFormat.TEXT,
    )
    # Not bool(result): a channel marked `?optional=yes` calls a failure a success.
    sent = any(attempt for each in result for attempt in each.attempts)
    return None if sent else _FAILED


def _understood(url: str) -> "NotifyBase | None":
    """Return Apprise's service for a URL, or None if it knows none."""
    import apprise  # noqa: PLC0415 -- see `_load`

    _load()
    # Nothing runs in Apprise's own threads, which the end of the process would wait for.
    asset = apprise.AppriseAsset(
        app_id="Ledger", app_desc="Ledger", async_mode=False, service_timeout=0
    )
    try:
        return apprise.Apprise.instantiate(url, asset=asset)
    except Exception:  # noqa: BLE001 -- a plugin's parser may raise anything about a bad URL
        return None


@cache
def _load() -> None:
    """Load Apprise with its plugins, and have it and what it uses log nothing.

    Not before it is needed: it is slow to load, and most commands send nothing.
    """
    import apprise  # noqa: PLC0415 -- as said

    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        # Some plugins use modules that Python deprecates: under `-W error` they would be missing.
        warnings.simplefilter("ignore", DeprecationWarning)
        apprise.Apprise.instantiate("json://localhost")
