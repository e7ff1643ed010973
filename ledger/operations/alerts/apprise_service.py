"""Sends through Apprise. The only module that imports it, for it is an extra and slow to load.

Two things here are not in Apprise's documentation: a service's `overflow_mode` and a result's
`attempts`. pyproject.toml pins the minor version, and tests compare both with that version.
"""

import logging
import warnings

import apprise

# They would log hosts, paths and bodies, and the path of a chat's webhook is its secret.
for _name in ("apprise", "requests", "urllib3"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)

with warnings.catch_warnings():
    # Some plugins use modules that Python deprecates: under `-W error` they would be missing.
    warnings.simplefilter("ignore", DeprecationWarning)
    apprise.Apprise.instantiate("json://localhost")  # loads the plugins


def service_of(url: str) -> apprise.NotifyBase | None:
    """Return Apprise's service for a URL, or None if Apprise does not understand the URL."""
    # Apprise's own threads would delay the end of the process, so it is to use none.
    asset = apprise.AppriseAsset(
        app_id="Ledger", app_desc="Ledger", async_mode=False, service_timeout=0
    )
    try:
        return apprise.Apprise.instantiate(url, asset=asset)
    except Exception:  # noqa: BLE001 -- a plugin's parser may raise anything about a bad URL
        return None


def kind_of(url: str) -> str | None:
    """Return the kind of a URL's service, such as `slack`, or None for a URL it does not know."""
    service = service_of(url)
    return service.schema if service else None


def send(url: str, title: str, body: str) -> bool | None:
    """Send an alert and return whether that succeeded; None if Apprise does not know the URL.

    A service is made for each call: some log in when they are made and out when they are dropped.
    Raises whatever the service's plugin raises.
    """
    service = service_of(url)
    if service is None:
        return None
    if service.overflow_mode is apprise.OverflowMode.UPSTREAM:
        # The receiver would refuse a text that is too long each time; its end matters least.
        service.overflow_mode = apprise.OverflowMode.TRUNCATE
    result = apprise.Apprise(service, asset=service.asset).notify(
        body,
        title=title,
        notify_type=apprise.NotifyType.WARNING,
        # Declared as plain text, it is escaped for services that take HTML or Markdown.
        body_format=apprise.NotifyFormat.TEXT,
    )
    # Not bool(result): a channel marked `?optional=yes` reports a failure as a success.
    return any(attempt for each in result for attempt in each.attempts)
