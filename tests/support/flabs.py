"""An account at the sandbox, and what Ledger needs to use it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from ledger.flabs.client import FlabsClient
from ledger.settings import Settings
from ledger.simulator.sandbox import Account, Options, Sandbox

SECRET = "a-secret-of-the-tests"
LABS = ("lab_0001", "lab_0002", "lab_0003")


@contextmanager
def sandbox_of(*labs: str, **options: Any) -> Iterator[Sandbox]:  # noqa: ANN401 -- of `Options`
    """Give a sandbox with these labs."""
    told = {"client_id": "c", "client_secret": SECRET, "needs_https": False, **options}
    with Sandbox(Account(labs or LABS, Options(**told))) as started:
        yield started


def settings_for(sandbox: Sandbox, **more: Any) -> Settings:  # noqa: ANN401 -- of `Settings`
    """Return the settings of somebody who has the sandbox's account."""
    told = {
        "flabs_url": sandbox.url,
        "flabs_client_id": "c",
        "flabs_client_secret": SECRET,
        "public_url": "http://127.0.0.1:1",
        "webhook_tokens": ("webhook-token-of-the-tests",),
        **more,
    }
    return Settings(**told)


def environment_for(sandbox: Sandbox, public_url: str) -> dict[str, str]:
    """Return the same as variables for a process."""
    return {
        "LEDGER_FLABS_URL": sandbox.url,
        "LEDGER_FLABS_CLIENT_ID": "c",
        "LEDGER_FLABS_CLIENT_SECRET": SECRET,
        "LEDGER_PUBLIC_URL": public_url,
    }


def client_of(sandbox: Sandbox, secret: str = SECRET) -> FlabsClient:
    """Return a client that does not pause."""
    return FlabsClient(sandbox.url, "c", secret, sleep=lambda _: None)


def fault(sandbox: Sandbox, **faults: object) -> None:
    """Ask the sandbox for faults, see `ledger.simulator.sandbox.faults.Faults`."""
    answer = httpx.post(f"{sandbox.url}/sandbox/faults", json=faults, trust_env=False)
    assert answer.status_code == 204, answer.text
