"""Rate limits: counters in the cache, which all processes share where it is Redis.

Time is cut into fixed windows, the same for everybody, and each counts from zero: that takes one atomic increment per
request, and the time of the next reset is known exactly. Without the cache everything is allowed.
"""

import hashlib
import ipaddress
import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest
from redis.exceptions import RedisError

from captioner.http.client import client_address

logger = logging.getLogger(__name__)

# After a failure the cache is not asked for this long: a server that does not answer would delay every request.
_REST_SECONDS = 5.0
_resting_until = 0.0  # of time.monotonic(); 0 while the cache works


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `quota` requests in each window of `window` seconds. `name` appears in the headers of answers."""

    name: str
    quota: int
    window: int


@dataclass(frozen=True, slots=True)
class Standing:
    """The requests that a rate still allows in this window, which ends in `reset` seconds."""

    rate: Rate
    remaining: int
    reset: int
    is_exceeded: bool = False


def rate_of(name: str) -> Rate | None:
    """Returns the rate that the settings give to `name`, None where it is off."""
    limit = settings.RATE_LIMITS[name]
    return None if limit is None else Rate(name.replace("_", "-"), *limit)


def rate_take(rate: Rate, who: str) -> Standing | None:
    """Counts one request of `who`. Returns None where the cache cannot be reached, and everything is allowed."""
    window, passed = divmod(time.time(), rate.window)
    count = _count(_key(rate, who, int(window)), 1, rate.window)
    if count is None:
        return None
    return Standing(
        rate,
        remaining=max(0, rate.quota - count),
        reset=max(1, math.ceil(rate.window - passed)),
        is_exceeded=count > rate.quota,
    )


def rate_give_back(rate: Rate, who: str) -> None:
    """Takes back one request that `rate_take` has just counted."""
    _count(_key(rate, who, int(time.time() // rate.window)), -1, rate.window)


def caller_take(request: HttpRequest, user_id: int | None, api_key_id: int | None) -> list[Standing]:
    """Counts one request of this caller: for the key and its user, or for the address of somebody anonymous.

    Returns the standings, exceeded and nearly exhausted ones first; `RateLimitMiddleware` finds them on `request`.
    """
    callers: dict[str, object] = {"key": api_key_id, "user": user_id}
    if user_id is None:
        callers["address"] = address_block(client_address(request))
    standings = [
        standing
        for name, who in callers.items()
        if who is not None and (rate := rate_of(name)) and (standing := rate_take(rate, str(who)))
    ]
    standings.sort(key=lambda standing: (not standing.is_exceeded, standing.remaining / standing.rate.quota))
    request.rate_standings = standings  # type: ignore[attr-defined]
    return standings


def address_block(address: str) -> str:
    """Returns the addresses that count as one caller: an IPv4 address, or the /64 that each IPv6 customer is given."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # a Unix socket has none
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        mapped = ip.ipv4_mapped
        return str(mapped or ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


def retry_after(standings: Iterable[Standing]) -> int | None:
    """Returns the seconds until all of them allow another request, None when they do now."""
    return max((standing.reset for standing in standings if standing.is_exceeded), default=None)


def seconds_in_words(seconds: int) -> str:
    count, unit = (seconds, "second") if seconds < 100 else (math.ceil(seconds / 60), "minute")
    return f"{count} {unit}{'' if count == 1 else 's'}"


def _key(rate: Rate, who: str, window: int) -> str:
    # Hashed, because a user name that somebody typed may be of any length and alphabet.
    return f"rate:{rate.name}:{hashlib.sha256(who.encode()).hexdigest()[:32]}:{window}"


def _count(key: str, step: int, seconds: int) -> int | None:
    """Returns the counter after one step, None while the cache cannot be reached."""
    global _resting_until
    if time.monotonic() < _resting_until:
        return None
    try:
        cache.add(key, 0, timeout=seconds)
        count: int = cache.incr(key, step)
    except ValueError:  # it expired in between: this is the first of its window
        return max(0, step)
    except (RedisError, OSError) as error:
        if not _resting_until:
            logger.error("Rates cannot be counted, so nothing is limited by them: %s", error)
        _resting_until = time.monotonic() + _REST_SECONDS
        return None
    if _resting_until:
        logger.warning("Rates are counted again.")
        _resting_until = 0.0
    return count
