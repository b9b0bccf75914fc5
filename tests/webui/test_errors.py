"""Error pages in the design of the others, with the right status."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from captioner.wsgi import application
from tests.conftest import FakeEngine
from tests.webui.pages import jpeg, text
from webui import home

pytestmark = pytest.mark.django_db


def assert_designed(page: str) -> None:
    assert 'class="wordmark"' in page
    assert "captioner.css" in page


def test_an_unknown_address(client: Client) -> None:
    response = client.get("/nothing/here")
    assert response.status_code == 404
    assert_designed(text(response))


def test_a_page_one_may_not_see(client: Client, user: User) -> None:
    user.is_staff = True
    user.save()
    client.force_login(user)
    response = client.get("/admin/captioner/photo/")
    assert response.status_code == 403
    assert_designed(text(response))


def test_more_files_than_are_read(client: Client, fake_engine: FakeEngine, settings: Settings) -> None:
    settings.DATA_UPLOAD_MAX_NUMBER_FILES = 2
    response = client.post("/", {"image": [jpeg(), jpeg(), jpeg()]})
    assert response.status_code == 400
    assert_designed(text(response))
    assert "This request cannot be read." in text(response)


def test_a_body_above_every_limit_is_refused_before_it_is_read(
    client: Client, fake_engine: FakeEngine
) -> None:
    response = client.post("/", {"image": jpeg()}, CONTENT_LENGTH=400 * 2**20)
    assert response.status_code == 413
    assert "too much was sent at once" in text(response)


def test_a_defect(client: Client, fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    client.raise_request_exception = False
    monkeypatch.setattr(home, "_home", lambda _request: 1 / 0)
    response = client.get("/")
    assert response.status_code == 500
    assert_designed(text(response))
    assert "division" not in text(response)


@pytest.mark.parametrize("charset", ["zlib", "utf-16", "idna", "no-such-codec"])
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=B"])
def test_an_odd_charset_is_no_server_error(
    monkeypatch: pytest.MonkeyPatch, fake_engine: FakeEngine, kind: str, charset: str
) -> None:
    monkeypatch.setattr("django.test.client.WSGIRequest", application.request_class)  # as it is served
    parts = b'--B\r\nContent-Disposition: form-data; name="csrfmiddlewaretoken"\r\n\r\nx\xff\r\n--B--\r\n'
    body = parts if "multipart" in kind else b"image=%ff%fe&x=%00"
    for client in (Client(), Client(enforce_csrf_checks=True)):
        client.cookies["csrftoken"] = "x" * 32
        response = client.generic("POST", "/", body, content_type=f"{kind}; charset={charset}")
        assert response.status_code in {400, 403}


def test_another_host_name_is_told_as_such_in_one_line(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    response = client.get("/", headers={"Host": "photos.example.org"})
    assert response.status_code == 400
    assert "ALLOWED_HOSTS" in text(response)
    assert "malformed" not in text(response)
    [record] = [each for each in caplog.records if each.name == "django.security.DisallowedHost"]
    assert record.exc_info is None


def test_a_form_from_another_address_has_not_expired(user: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    told = text(client.post("/account", headers={"Origin": "http://photos.example.org"}))
    assert "came from another address" in told
    assert "CSRF_TRUSTED_ORIGINS" in told
    assert "This form has expired." in text(client.post("/account", headers={"Origin": "http://testserver"}))
    assert "This form has expired." in text(client.post("/account"))
