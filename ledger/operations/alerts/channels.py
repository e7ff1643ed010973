"""Channels that alerts are sent to. A channel is an Apprise URL, which holds secrets.

Logs and errors therefore name a channel by its place in LEDGER_ALERT_URLS and by its kind, as in
`channel 2 (slack)`.
"""

import hashlib
import threading
import time
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Protocol

from msgspec import Struct

from ledger.errors import SettingsError

SEND_SECONDS = 30.0
"""How long a channel may take for one alert. Apprise limits only the time between two bytes, so a
server that sends a byte now and then would hold it for ever."""

MOST_HANGING = 3
"""Attempts on one channel that may hang before no more are begun; each holds a thread."""

UNKNOWN = "unknown"
"""The kind of a channel whose URL Apprise does not understand."""

_FAILED = "it failed"
_NOT_UNDERSTOOD = "Apprise does not understand its URL"

_hanging: dict[str, list[threading.Thread]] = {}


class Channel(Struct, frozen=True):
    """A URL, its place in the list (from 1) and its kind, such as `slack` or `mailto`."""

    number: int
    kind: str
    url: str

    def __repr__(self) -> str:
        """Name the channel without its URL, which is a secret."""
        return f"channel {self.number} ({self.kind})"

    __str__ = __repr__


def check_channels(urls: Sequence[str]) -> None:
    """Raise `SettingsError` if Apprise is missing or does not understand one of the URLs.

    The error names the first such URL by its place.
    """
    for number, url in enumerate(urls, start=1):
        if _apprise().kind_of(url) is None:
            raise SettingsError(
                f"LEDGER_ALERT_URLS: URL {number} of {len(urls)} is none that Apprise understands "
                "(not shown, for it may hold a secret). It must look like "
                "mailto://user:password@host or slack://token/#channel: "
                "see https://appriseit.com/services/"
            )


def channel_id(url: str) -> str:
    """Return the hash by which the database knows a channel."""
    return hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()


def channel_of(number: int, url: str) -> Channel:
    """Return the channel of a URL and its place in the list."""
    return Channel(number, _apprise().kind_of(url) or UNKNOWN, url)


class _Apprise(Protocol):
    """The functions of `apprise_service`."""

    def kind_of(self, url: str) -> str | None: ...
    def send(self, url: str, title: str, body: str) -> bool | None: ...


class Attempt:
    """One attempt to send one alert on one channel, begun at once in its own thread."""

    def __init__(
        self, channel: Channel, title: str, body: str, ended: "SimpleQueue[Attempt]"
    ) -> None:
        self.channel = channel
        self.deadline = time.monotonic() + SEND_SECONDS
        self.failure: str | None = None
        """Why it failed, None if the alert was sent; valid once the attempt is in `ended`."""

        self._ended = ended
        # A daemon, so that an attempt that hangs does not keep the process from ending.
        self._thread = threading.Thread(
            target=self._run, args=(title, body), name=f"alert {channel}", daemon=True
        )
        hanging = [thread for thread in _hanging.get(channel.url, []) if thread.is_alive()]
        _hanging[channel.url] = hanging
        if len(hanging) < MOST_HANGING:
            self._thread.start()
        else:
            self.failure = f"{len(hanging)} earlier attempts have not ended yet"
            ended.put(self)

    def give_up(self) -> str:
        """Stop waiting and return why. The alert may still be sent, and is then sent twice."""
        _hanging[self.channel.url].append(self._thread)
        return f"it did not end within {SEND_SECONDS:g} s"

    def _run(self, title: str, body: str) -> None:
        try:
            self.failure = _send(self.channel.url, title, body)
        except Exception as error:  # noqa: BLE001 -- whatever a plugin raises is one failed attempt
            # The error's text may hold the URL; its type does not.
            self.failure = f"{_FAILED} with {type(error).__name__}"
        self._ended.put(self)


def _send(url: str, title: str, body: str) -> str | None:
    """Send an alert and return why that failed, None if it did not."""
    sent = _apprise().send(url, title, body)
    if sent is None:
        return _NOT_UNDERSTOOD
    return None if sent else _FAILED


def _apprise() -> _Apprise:
    """Return the module that uses Apprise. Raises `SettingsError` if Apprise is not installed."""
    try:
        from ledger.operations.alerts import apprise_service  # noqa: PLC0415 -- an extra, and slow
    except ModuleNotFoundError as error:
        if error.name != "apprise":
            raise
        raise SettingsError(
            "LEDGER_ALERT_URLS is set, but Apprise, which sends alerts, is not installed: "
            'run pip install "ledger[alerts]", or remove the setting'
        ) from None
    return apprise_service
