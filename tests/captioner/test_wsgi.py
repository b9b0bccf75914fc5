from wsgiref.util import setup_testing_defaults

import pytest

from captioner.wsgi import application


@pytest.mark.parametrize("charset", ["zlib", "rot13", "bz2", "hex", "base64", "utf-16", "no-such", "utf-8"])
def test_charset_named_by_a_client_changes_nothing(charset: str) -> None:
    environ = {"QUERY_STRING": "a=%C3%A9", "CONTENT_TYPE": f"text/plain; charset={charset}"}
    setup_testing_defaults(environ)
    assert application.request_class(environ).GET["a"] == "é"
