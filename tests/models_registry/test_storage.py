import threading
from concurrent.futures import ThreadPoolExecutor

from django.core.files.storage import storages

from models_registry import storage


def test_of_eight_writers_of_one_local_manifest_one_wins() -> None:
    together = threading.Barrier(8)

    def attempt(number: int) -> bool:
        together.wait()
        return storage._create("versions/raced/manifest.json", f"{number}".encode())

    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(attempt, range(8)))
    assert sum(wins) == 1
    assert storages["weights"].open("versions/raced/manifest.json").read().decode() == str(wins.index(True))
    assert storages["weights"].listdir("versions/raced") == ([], ["manifest.json"])
