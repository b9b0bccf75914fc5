"""Quotas counted in a real Redis: shared by processes, exact under concurrency, and no obstacle when it is gone."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.core.cache import caches
from django.test import override_settings

from captioner.http import rates
from captioner.http.rates import Rate
from tests.stack import servers

pytestmark = pytest.mark.stack

RATE = Rate("key", quota=100, window=86_400)


def cache_settings(url: str) -> dict:
    options = {"socket_connect_timeout": 0.5, "socket_timeout": 0.5}
    return {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": url,
            "OPTIONS": options,
        }
    }


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    with servers.redis(tmp_path) as url, override_settings(CACHES=cache_settings(url)):
        yield url
    rates._resting_until = 0.0
    caches.close_all()


def take_many(count: int) -> int:
    """How many of `count` requests, sent by four threads at once, were let through."""
    with ThreadPoolExecutor(4) as pool:
        standings = list(pool.map(lambda _: rates.rate_take(RATE, "ada"), range(count)))
    return sum(not standing.is_exceeded for standing in standings)


def _child(url: str) -> int:
    with override_settings(CACHES=cache_settings(url)):
        return take_many(80)


def test_processes_share_one_quota_to_the_last_request(redis_url: str) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        passed = pool.map(_child, [redis_url, redis_url], chunksize=1)
    assert sum(passed) == RATE.quota
    assert rates.rate_take(RATE, "ada").is_exceeded


def test_a_redis_that_was_killed_holds_nobody_up(tmp_path: Path) -> None:
    with servers.redis(tmp_path) as url, override_settings(CACHES=cache_settings(url)):
        assert rates.rate_take(RATE, "ada").remaining == 99
    with override_settings(CACHES=cache_settings(url)):
        assert [rates.rate_take(RATE, "ada") for _ in range(200)] == [None] * 200
    rates._resting_until = 0.0
