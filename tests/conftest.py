"""Fixtures that any test may ask for."""

import os
import random
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from ledger import schema
from tests.support.addresses import database_of
from tests.support.cluster import coordinator
from tests.support.examples import examples
from tests.support.postgres import (
    PrivateServer,
    folder_for_postgres,
    new_database,
    new_plain_database,
    plain_database,
    ready_database,
    running_server,
)

FUZZ_SEED = "LEDGER_TEST_FUZZ_SEED"


# Without bytecode, each process that runs tests compiles all modules and rewrites all assertions
# again, half a minute of them, and each command of a test compiles Ledger.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_configure() -> None:
    """Choose the seed of fuzzing, which the processes that run tests inherit."""
    os.environ.setdefault(FUZZ_SEED, str(random.SystemRandom().randrange(2**32)))


def pytest_report_header() -> str:
    """Print the seed, so that a run can be repeated."""
    return f"fuzzing: {FUZZ_SEED}={os.environ[FUZZ_SEED]}"


# A machine under load takes as long as it takes for an example, and to draw one.
settings.register_profile(
    "tests",
    max_examples=examples(100),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")


_SHARED = {"postgres_url", "image", "world"}
"""Fixtures of tests that are about the chosen server, or about the container engine."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer to run only what the choice of a PostgreSQL makes a difference to."""
    parser.addoption(
        "--shared-server",
        action="store_true",
        help="only tests with databases on the server that LEDGER_TEST_IMAGE or its like names",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what starts servers of its own, if asked, and on a cluster what is about one."""
    if config.getoption("--shared-server"):
        items[:] = [item for item in items if _SHARED & set(getattr(item, "fixturenames", ()))]
    if not coordinator():
        return
    for item in items:
        if mark := item.get_closest_marker("one_server"):
            item.add_marker(pytest.mark.skip(reason=f"on a cluster: {mark.args[0]}"))


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of the server all tests of this process share; make databases in it, don't stop it."""
    with running_server() as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(postgres_url: str) -> Iterator[str]:
    """Name of a database of one server that was migrated once, to be cloned."""
    with new_plain_database(postgres_url) as name:
        schema.migrate(database_of(postgres_url, name))
        yield name


@pytest.fixture
def database_url(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """URL of a migrated database of the test's own."""
    with ready_database(postgres_url, migrated_template) as url:
        yield url


@pytest.fixture(scope="module")
def module_database_url(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """URL of a migrated database that the tests of a module share."""
    with ready_database(postgres_url, migrated_template) as url:
        yield url


@pytest.fixture(scope="module")
def plain_database_url(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """URL of a migrated database of one server, also where the others are on a cluster."""
    with plain_database(postgres_url, migrated_template) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """URL of a database of the test's own, not migrated."""
    with new_database(postgres_url) as name:
        yield database_of(postgres_url, name)


@pytest.fixture
def postgres_server() -> Iterator[PrivateServer]:
    """Give a server of the test's own to kill and restart; durable, as in production."""
    with folder_for_postgres() as folder:
        server = PrivateServer(folder / "postgres")
        try:
            yield server
        finally:
            server.stop()
