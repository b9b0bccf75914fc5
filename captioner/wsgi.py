"""WSGI entry point. The server's worker starts the engine, after the fork: see deploy/gunicorn.conf.py."""

import os

from django.core.handlers.wsgi import WSGIRequest
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "captioner.settings")


class Utf8Request(WSGIRequest):
    """Always decoded as UTF-8: Django would try any codec that the Content-Type names, and fail on "zlib"."""

    encoding = property(lambda _self: "utf-8", lambda _self, _charset: None)


application = get_wsgi_application()
application.request_class = Utf8Request
