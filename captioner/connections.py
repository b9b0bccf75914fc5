"""What the server's connection tells about the client behind a request."""

import select

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
