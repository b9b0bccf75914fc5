"""Typed access to environment variables that fails loudly.

Every variable may also be given as `NAME_FILE`, the path of a file holding the value, the way Docker and
Kubernetes hand out secrets. An empty variable counts as unset, so `compose` files can pass variables through.
"""

import os
import re
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.core.exceptions import ImproperlyConfigured

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_RATE = re.compile(r"([1-9]\d*)/([1-9]\d*)?([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def env_text(name: str, default: str = "", *, choices: tuple[str, ...] = ()) -> str:
    """The value of `name` or of the file `NAME_FILE` points at, stripped; `default` when neither is set."""
    value = _read(name)
    if value is None:
        return default
    if choices and value not in choices:
        raise ImproperlyConfigured(f"{name}={value!r} is not allowed; use one of: {', '.join(choices)}.")
    return value


def env_bool(name: str, default: bool) -> bool:
    value = _read(name)
    if value is None:
        return default
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise ImproperlyConfigured(
        f"{name}={value!r} is not a boolean; use one of: true, false, 1, 0, yes, no, on, off."
    )


def env_int(name: str, default: int, *, minimum: int | None = None, maximum: int | None = None) -> int:
    value = _read(name)
    if value is None:
        return default
    try:
        number = int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={value!r} is not a whole number.") from None
    if minimum is not None and number < minimum:
        raise ImproperlyConfigured(f"{name}={number} is too small; the least allowed is {minimum}.")
    if maximum is not None and number > maximum:
        raise ImproperlyConfigured(f"{name}={number} is too large; the most allowed is {maximum}.")
    return number


def env_list(name: str, default: list[str]) -> list[str]:
    """A comma-separated list; blanks around and between commas are dropped."""
    value = _read(name)
    if value is None:
        return default
    return [item.strip() for item in value.split(",") if item.strip()]


def env_rate(name: str, default: str) -> tuple[int, int] | None:
    """How often per how many seconds, from e.g. "500/5m" or "10/s"; None for "off"."""
    value = _read(name) or default
    if value == "off":
        return None
    match = _RATE.fullmatch(value)
    if match is None:
        raise ImproperlyConfigured(
            f"{name}={value!r} is no rate; write a number per time, e.g. 500/5m, 10/s or 1000/d, or off."
        )
    count, times, unit = match.groups()
    return int(count), int(times or 1) * _SECONDS[unit]


def env_timezone(name: str, default: str) -> str:
    """The name of a time zone, such as Europe/Berlin."""
    value = _read(name) or default
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ImproperlyConfigured(f"{name}={value!r} is no time zone; write e.g. Europe/Berlin.") from None
    return value


def env_path(name: str, default: Path) -> Path:
    """An absolute path; `~` is expanded and a relative one is taken from the working directory."""
    value = _read(name)
    return Path(value).expanduser().resolve() if value is not None else default.resolve()


def _read(name: str) -> str | None:
    value = os.environ.get(name, "").strip()
    file = os.environ.get(f"{name}_FILE", "").strip()
    if value and file:
        raise ImproperlyConfigured(f"{name} and {name}_FILE are both set; keep one of them.")
    if file:
        try:
            value = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ImproperlyConfigured(f"{name}_FILE={file!r} cannot be read as text: {error}.") from error
    return value or None
