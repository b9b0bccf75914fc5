"""Rate limits, and the address of a client behind proxies."""

import logging

import pytest
from django.core.cache import cache
from django.test import RequestFactory
from redis.exceptions import ConnectionError as RedisConnectionError

from captioner.http import rates
from captioner.http.client import client_address
from captioner.http.rates import Rate

RATE = Rate("key", quota=2, window=60)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time; change its only entry to let some pass."""
    now = [1_000_020.0]  # a multiple of 60
    monkeypatch.setattr(rates.time, "time", lambda: now[0])
    return now


def take(who: str = "ada") -> tuple[int, int, bool]:
    standing = rates.rate_take(RATE, who)
    assert standing is not None
    return standing.remaining, standing.reset, standing.is_exceeded


def test_a_quota_counts_down_and_is_exceeded_after_its_last(clock: list[float]) -> None:
    assert [take() for _ in range(3)] == [(1, 60, False), (0, 60, False), (0, 60, True)]


def test_the_next_window_starts_from_zero_when_it_was_said_to(clock: list[float]) -> None:
    clock[0] += 12.5
    for _ in range(3):
        _, reset, is_exceeded = take()
    assert (reset, is_exceeded) == (48, True)
    clock[0] += reset
    assert take() == (1, 60, False)


def test_each_is_counted_alone_whatever_the_name(clock: list[float]) -> None:
    for who in ("ada", "Bob", "an é and\na line", "x" * 10_000):
        assert take(who)[0] == 1


def test_what_is_given_back_was_never_taken(clock: list[float]) -> None:
    take()
    rates.rate_give_back(RATE, "ada")
    assert take()[0] == 1


def test_nobody_is_held_up_by_a_cache_that_is_gone_and_the_log_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    def gone(key: str, *args: object, **kwargs: object) -> None:
        asked.append(key)
        raise RedisConnectionError("Connection refused")

    now = [1000.0]
    monkeypatch.setattr(rates, "_resting_until", 0.0)
    monkeypatch.setattr(rates.time, "monotonic", lambda: now[0])
    with monkeypatch.context() as patch:
        patch.setattr(cache, "add", gone)
        assert [rates.rate_take(RATE, "ada") for _ in range(5)] == [None] * 5
        assert len(asked) == 1, "it is left alone for a while"
        now[0] += 60
        assert rates.rate_take(RATE, "ada") is None
    now[0] += 60
    assert rates.rate_take(RATE, "ada") is not None
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.message for record in errors] == [
        "Rates cannot be counted, so nothing is limited by them: Connection refused"
    ]
    assert caplog.records[-1].message == "Rates are counted again."


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (0, "203.0.113.9", "10.0.0.1"),
        (1, None, "10.0.0.1"),
        (1, "", "10.0.0.1"),
        (1, "203.0.113.9", "203.0.113.9"),
        (1, "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        (2, "6.6.6.6, 203.0.113.9, 10.0.0.7", "203.0.113.9"),
        (2, "203.0.113.9", "203.0.113.9"),
    ],
)
def test_a_client_cannot_choose_its_address(
    settings, proxies: int, forwarded: str | None, expected: str
) -> None:
    settings.TRUSTED_PROXIES = proxies
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    assert client_address(RequestFactory().get("/", headers=headers, REMOTE_ADDR="10.0.0.1")) == expected


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("", ""),
    ],
)
def test_whoever_has_a_network_is_one_caller(address: str, block: str) -> None:
    assert rates.address_block(address) == block


@pytest.mark.parametrize(("seconds", "words"), [(1, "1 second"), (60, "60 seconds"), (241, "5 minutes")])
def test_waiting_times_read_well(seconds: int, words: str) -> None:
    assert rates.seconds_in_words(seconds) == words
