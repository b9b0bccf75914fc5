"""What the server's connection tells about the client behind a request."""

import select

from django.conf import settings
from django.http import HttpRequest

# Linux reports a peer that closed its side. Elsewhere only a connection closed on both sides is seen.
_PEER_CLOSED = getattr(select, "POLLRDHUP", 0)


def client_gone(request: HttpRequest) -> bool:
    """Whether the client closed its connection, so that nobody is left to read the answer.

    Only gunicorn hands its socket to the application; under any other server nobody is ever found gone. The
    socket is polled, not read, so the connection's next request stays where it is. Behind a proxy the client
    is the proxy, which hangs up once its own client did.
    """
    connection = request.META.get("gunicorn.socket")
    if connection is None:
        return False
    poll = select.poll()
    poll.register(connection, _PEER_CLOSED)
    return bool(poll.poll(0))


def client_address(request: HttpRequest) -> str:
    """The IP address of whoever sent the request, seen through `TRUSTED_PROXIES` proxies.

    Each proxy appends the address it was called from to `X-Forwarded-For`, so only that many entries from the end
    are true; what stands before them is whatever the client wrote.
    """
    hops = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    if settings.TRUSTED_PROXIES and hops[-1].strip():
        return str(hops[-min(settings.TRUSTED_PROXIES, len(hops))].strip())
    return str(request.META.get("REMOTE_ADDR", ""))
