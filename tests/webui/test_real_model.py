"""From the demonstration model to a real one: the banner, the table and its buttons."""

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client

from captioner.importing import services
from captioner.importing.known import KNOWN_MODELS
from captioner.models import ModelImport
from models_registry import bundled, promotions
from tests.conftest import FakeEngine
from tests.models_registry.versions import version_publish
from tests.webui.pages import text

pytestmark = pytest.mark.django_db
BLIP = KNOWN_MODELS[0].hub_id


@pytest.fixture(autouse=True)
def _nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_import_enqueue", lambda wanted: None)


@pytest.fixture
def demonstration(tmp_path: Path) -> None:
    promotions.version_promote(version_publish(tmp_path, bundled.STARTER_NAME), reason="a test")


def test_the_first_page_says_that_the_model_is_a_demonstration(
    client: Client, fake_engine: FakeEngine, demonstration: None, tmp_path: Path
) -> None:
    assert "This is the demonstration model." in text(client.get("/"))
    promotions.version_promote(version_publish(tmp_path, "blip"), reason="a test")
    assert "demonstration" not in text(client.get("/"))


def test_what_is_on_its_way_is_told_on_the_first_page(
    client: Client, fake_engine: FakeEngine, demonstration: None
) -> None:
    ModelImport.objects.create(
        source=BLIP, status="running", stage="fetching", done=4 * 10**8, total=99 * 10**7
    )
    page = text(client.get("/"))
    assert f"{BLIP}, fetching, 0.4 of 1.0 GB" in page
    assert "data-live" not in page  # whoever chooses photos is not disturbed


def test_everybody_sees_the_table_and_administrators_a_button(
    client: Client, user: User, reviewer: User, demonstration: None
) -> None:
    for who in (None, user):
        if who:
            client.force_login(who)
        page = text(client.get("/models/real"))
        assert BLIP in page
        assert "BSD 3-Clause" in page
        assert "MODEL=owner/name make run" in page
        assert "Use it" not in page
        assert client.post("/models/real", {"source": BLIP}).status_code == 403
    client.force_login(reviewer)
    assert "Use it" in text(client.get("/models/real"))
    response = client.post("/models/real", {"source": BLIP}, follow=True)
    assert response.redirect_chain == [("/models/real", 303)]
    assert f"{BLIP} is being fetched" in text(response)
    assert "Use it" not in text(response)
    assert 'data-live="5"' in text(response)
    wanted = ModelImport.objects.get()
    assert (wanted.licence, wanted.promote, wanted.requested_by) == ("BSD 3-Clause", True, reviewer)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"source": "/etc/passwd"}, "write it as owner/name"),
        ({}, "write it as owner/name"),
        ({"source": "a/b", "revision": "\0"}, "no commit, tag or branch"),
    ],
)
def test_what_cannot_be_imported_is_told(
    client: Client, reviewer: User, fields: dict[str, str], complaint: str
) -> None:
    client.force_login(reviewer)
    response = client.post("/models/real", fields)
    assert response.status_code == 400
    assert complaint in text(response)
    assert not ModelImport.objects.exists()


def test_the_admin_asks_for_one_too(client: Client, reviewer: User, user: User) -> None:
    client.force_login(reviewer)
    fields = {"source": "owner/tiny", "revision": "v1", "licence": "MIT"}
    refused = client.post("/admin/captioner/modelimport/add/", fields | {"source": "tiny"})
    assert "write it as owner/name" in text(refused)
    assert client.post("/admin/captioner/modelimport/add/", fields).status_code == 302
    wanted = ModelImport.objects.get()
    assert (wanted.source, wanted.revision, wanted.licence, wanted.promote) == (
        "owner/tiny",
        "v1",
        "MIT",
        False,
    )
    assert wanted.requested_by == reviewer
    assert "being imported already" in text(client.post("/admin/captioner/modelimport/add/", fields))
    page = text(client.get(f"/admin/captioner/modelimport/{wanted.pk}/change/"))
    assert "queued" in page
    assert "_save" not in page
