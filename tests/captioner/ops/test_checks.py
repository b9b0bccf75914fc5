from pathlib import Path

import pytest

from captioner.ops import checks


def ids(messages: list) -> list[str]:
    assert all(message.hint for message in messages), "every check tells what to do"
    return [message.id for message in messages]


def test_a_working_installation_has_nothing_to_say(settings) -> None:
    for check in (checks.check_data_dir, checks.check_s3, checks.check_broker, checks.check_database):
        assert check(None) == []


def test_an_unwritable_data_folder(settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings.DATA_DIR = tmp_path / "file" / "below"
    assert ids(checks.check_data_dir(None)) == ["captioner.E001"]


def test_an_s3_server_without_a_bucket(settings) -> None:
    settings.S3_ENDPOINT_URL = "http://minio:9000"
    assert ids(checks.check_s3(None)) == ["captioner.E002"]


@pytest.mark.parametrize("address", ["minio:9000", "minio", "ftp://minio", "http://"])
def test_an_s3_server_that_is_no_address(settings, address: str) -> None:
    settings.S3_ENDPOINT_URL, settings.S3_BUCKET = address, "captioner"
    assert ids(checks.check_s3(None)) == ["captioner.E005"]


def test_half_a_pair_of_s3_keys(settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ACCESS_KEY", "key")
    assert ids(checks.check_s3(None)) == ["captioner.E003"]


def test_a_broker_celery_does_not_know(settings) -> None:
    settings.CELERY_BROKER_URL = "http://redis:6379"
    assert ids(checks.check_broker(None)) == ["captioner.E004"]


def test_production_on_one_machines_files(settings) -> None:
    settings.PRODUCTION = True
    assert ids(checks.check_broker(None)) == ["captioner.W002"]
    assert ids(checks.check_database(None)) == ["captioner.W003"]


def test_requests_that_may_take_longer_than_a_stopping_process_waits(settings) -> None:
    assert checks.check_timeout(None) == []
    settings.CAPTION_TIMEOUT_SECONDS = 30
    assert ids(checks.check_timeout(None)) == ["captioner.W004"]


def test_any_host_name_allowed(settings) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    assert ids(checks.check_allowed_hosts(None)) == ["captioner.W001"]
