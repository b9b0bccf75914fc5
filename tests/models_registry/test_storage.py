from django.core.files.storage import storages

from tests.models_registry.versions import manifest_race


def test_of_eight_writers_of_one_local_manifest_one_wins() -> None:
    manifest_race()
    assert storages["weights"].listdir("versions/raced") == ([], ["manifest.json"])
