"""Only a trusted proxy is believed when it tells whom it speaks for."""

import pytest

from ledger.intake.proxies import TrustedProxies, neighbourhood

PROXIES = TrustedProxies(["10.0.0.0/8", "127.0.0.1", "fd00::/8"])


@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        ("10.1.2.3", True),
        ("127.0.0.1", True),
        ("::ffff:10.1.2.3", True),
        ("fd00::1", True),
        ("fd00::1%eth0", True),
        ("127.0.0.2", False),
        ("11.0.0.1", False),
        ("::1", False),
        ("testclient", False),
        ("", False),
    ],
)
def test_a_proxy_is_known_by_its_address(host: str, *, trusted: bool) -> None:
    assert PROXIES.trust(host) is trusted
    assert TrustedProxies().trust(host) is False


@pytest.mark.parametrize(
    ("told", "client"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        (["203.0.113.7", "10.0.0.2"], "203.0.113.7"),
        (["198.51.100.1, 203.0.113.7"], "203.0.113.7"),  # the client made the first one up
        (["198.51.100.1", "203.0.113.7,10.0.0.2"], "203.0.113.7"),
        (["10.0.0.9"], "10.0.0.9"),
        (["2001:db8::5"], "2001:db8::5"),
        (["[2001:db8::5]:4711"], "2001:db8::5"),
        (["203.0.113.7:4711"], "203.0.113.7"),
        (["::ffff:203.0.113.7"], "203.0.113.7"),
        (["unknown"], "10.0.0.1"),
        (["unknown, 203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7, garbage, 10.0.0.3"], "10.0.0.3"),
        ([""], "10.0.0.1"),
        ([","], "10.0.0.1"),
        ([], "10.0.0.1"),
    ],
)
def test_the_last_address_that_is_no_proxys_is_the_clients(told: list[str], client: str) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in told]
    assert PROXIES.client_of("10.0.0.1", [(b"host", b"1.2.3.4"), *headers]) == client


@pytest.mark.parametrize(
    ("host", "counted_as"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
    ],
)
def test_a_network_of_ipv6_counts_as_one_client(host: str, counted_as: str) -> None:
    assert neighbourhood(host) == counted_as
