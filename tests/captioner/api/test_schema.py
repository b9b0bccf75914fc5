"""GET /api/schema and /api/docs"""

import json
import re

import pytest
from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.test import Client


@pytest.fixture
def schema(client: Client) -> dict:
    response = client.get("/api/schema", headers={"Accept": "application/vnd.oai.openapi+json"})
    assert response.status_code == 200
    return json.loads(response.content)


def test_is_valid_and_complete(tmp_path) -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yml"))


def test_describes_every_route(schema: dict) -> None:
    assert schema["openapi"].startswith("3.1")
    operations = {f"{method} {path}" for path, item in schema["paths"].items() for method in item}
    assert operations == {
        "get /api/v1/captions",
        "post /api/v1/captions",
        "get /api/v1/captions/export",
        "get /api/v1/captions/{id}",
        "patch /api/v1/captions/{id}",
        "delete /api/v1/captions/{id}",
        "get /api/v1/captions/{id}/photo",
        "get /api/v1/captions/{id}/thumbnail",
        "post /api/v1/captions/{id}/feedback",
        "post /api/v1/captions/{id}/again",
        "get /api/v1/models",
        "post /api/v1/models/{id}/promote",
        "post /api/v1/models/rollback",
        "post /api/v1/models/{id}/pin",
        "post /api/v1/models/{id}/unpin",
        "delete /api/v1/models/challenger",
        "patch /api/v1/models/rollout",
        "post /api/v1/models/retain",
        "get /api/v1/jobs",
        "post /api/v1/jobs",
        "get /api/v1/jobs/{id}",
        "delete /api/v1/jobs/{id}",
        "get /api/v1/jobs/{id}/results",
    }


def test_photo_may_be_sent_in_each_way(schema: dict) -> None:
    operation = schema["paths"]["/api/v1/captions"]["post"]
    content = operation["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "application/json", "image/*", "application/octet-stream"}
    components = schema["components"]["schemas"]
    upload = components[content["multipart/form-data"]["schema"]["$ref"].rsplit("/")[-1]]
    assert upload["required"] == ["image"]
    assert upload["properties"]["num_beams"]["minimum"] == 1
    inline = components[content["application/json"]["schema"]["$ref"].rsplit("/")[-1]]
    assert inline["required"] == ["image_base64"]
    assert {parameter["name"] for parameter in operation["parameters"]} == {
        "num_captions",
        "num_beams",
        "max_new_tokens",
        "user",
        "Idempotency-Key",
    }


def test_errors_are_problems(schema: dict) -> None:
    for path in schema["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert set(response["content"]) == {"application/problem+json"}


def test_confidence_may_be_absent(schema: dict) -> None:
    confidence = schema["components"]["schemas"]["Caption"]["properties"]["confidence"]
    assert "null" in confidence["type"]


def test_signing_in_is_described(schema: dict) -> None:
    assert schema["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"


def test_docs_load_local_assets_only(client: Client) -> None:
    response = client.get("/api/docs")
    assert response.status_code == 200
    assets = re.findall(r'(?:src|href)="([^"]+)"', response.content.decode())
    assert len(assets) >= 3
    assert assets.pop() == "/api/docs?script="
    assert client.get("/api/docs?script=").headers["Content-Type"].startswith("application/javascript")
    for asset in assets:
        assert asset.startswith("/static/")
        assert finders.find(asset.removeprefix("/static/"))


def test_a_job_is_an_archive_or_photos(schema: dict) -> None:
    content = schema["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "application/zip"}
    form = schema["components"]["schemas"][content["multipart/form-data"]["schema"]["$ref"].rsplit("/")[-1]]
    assert {"archive", "image", "num_captions"} <= set(form["properties"])
    results = schema["paths"]["/api/v1/jobs/{id}/results"]["get"]
    assert set(results["responses"]["200"]["content"]) == {
        "application/jsonl",
        "text/csv",
        "application/json",
    }
