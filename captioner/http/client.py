"""The client behind a request: its address, and whether it is still connected."""

import select

from django.conf import settings
from django.http import HttpRequest

# Linux reports a peer that closed its side. Elsewhere only a connection closed on both sides is seen.
_PEER_CLOSED = getattr(select, "POLLRDHUP", 0)


def client_gone(request: HttpRequest) -> bool:
    """Returns whether the client has closed its connection and will not read the answer.

    Only gunicorn hands its socket to the application; under other servers this is always False. The socket is
    polled, not read, so the connection's next request stays intact. Behind a proxy the client is the proxy, which
    closes its connection once its own client has.
    """
    connection = request.META.get("gunicorn.socket")
    if connection is None:
        return False
    poll = select.poll()
    poll.register(connection, _PEER_CLOSED)
    return bool(poll.poll(0))


def client_address(request: HttpRequest) -> str:
    """Returns the IP address that sent the request to the first of `TRUSTED_PROXIES` proxies.

    Each proxy appends the address it was called from to `X-Forwarded-For`, so only that many entries from the end
    can be trusted; the client may have written the ones before.
    """
    hops = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    if settings.TRUSTED_PROXIES and hops[-1].strip():
        return str(hops[-min(settings.TRUSTED_PROXIES, len(hops))].strip())
    return str(request.META.get("REMOTE_ADDR", ""))
