"""ZIP archives from strangers: refused by what their directory says, before anything is unpacked."""

import io
import struct
import zipfile
from collections.abc import Callable

import pytest

from captioner.exceptions import InvalidArchive
from captioner.intake.limits import MAX_BYTES
from captioner.jobs import archives
from captioner.jobs.archives import archive_photos

LIMITS = {"max_photos": 10, "max_bytes": 50_000_000}


def zipped(*names: str, content: bytes = b"photo", compression: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name in names:
            archive.writestr(name, content)
    return file


def refusal(file: io.BytesIO, **limits: int) -> InvalidArchive:
    with pytest.raises(InvalidArchive) as caught:
        archive_photos(file, **LIMITS | limits)
    return caught.value


def test_photos_come_in_order_with_the_names_they_have() -> None:
    photos = archive_photos(zipped("b.jpg", "folder/a b é.jpg", "c.jpg"), **LIMITS)
    assert [photo.name for photo in photos] == ["b.jpg", "folder/a b é.jpg", "c.jpg"]
    assert [photo.read() for photo in photos] == [b"photo"] * 3
    assert photos[0].size == 5


def test_folders_and_what_systems_leave_behind_are_no_photos() -> None:
    file = zipped("a.jpg", "folder/", "__MACOSX/._a.jpg", ".DS_Store", "x/.hidden.jpg", "x/Thumbs.db")
    assert [photo.name for photo in archive_photos(file, **LIMITS)] == ["a.jpg"]


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"no archive at all" * 10, b"PK\x05\x06" + b"\xff" * 18, b"PK\x05\x06" + b"\0" * 10],
)
def test_what_is_no_archive(content: bytes) -> None:
    assert refusal(io.BytesIO(content)).reason in {"not_an_archive", "too_many"}


def test_a_cut_archive() -> None:
    assert refusal(io.BytesIO(zipped("a.jpg").getvalue()[:-10])).reason == "not_an_archive"


def test_nothing_within() -> None:
    assert refusal(zipped()).reason == "empty"
    assert refusal(zipped("folder/", ".DS_Store")).reason == "empty"


def test_more_photos_than_are_taken() -> None:
    error = refusal(zipped(*(f"{n}.jpg" for n in range(11))))
    assert error.reason == "too_many"
    assert "holds 11 files; at most 10" in str(error)


def test_a_directory_of_countless_entries_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    file = zipped(*(f"{n:05}.jpg" for n in range(5000)), content=b"")
    monkeypatch.setattr(zipfile.ZipInfo, "__init__", lambda *_: pytest.fail("an entry became an object"))
    assert refusal(file).reason == "too_many"


def test_more_bytes_than_are_taken_once_unpacked() -> None:
    bomb = zipped("a.jpg", "b.jpg", content=bytes(1_000_000))
    assert len(bomb.getvalue()) < 10_000
    assert refusal(bomb, max_bytes=1_999_999).reason == "too_large"


def test_entries_that_share_their_bytes_count_each() -> None:
    file = zipped("a.jpg", content=bytes(1_000_000))
    data = file.getvalue()
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entries = data[start:end] * 5
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 5, 5, len(entries), start, 0)
    assert refusal(io.BytesIO(data[:start] + entries + tail), max_bytes=4_999_999).reason == "too_large"


def test_a_size_that_is_a_lie_unpacks_no_further_than_it_says() -> None:
    data = bytearray(zipped("a.jpg", content=bytes(1_000_000)).getvalue())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<L", data, data.index(signature) + offset, 10)
    [photo] = archive_photos(io.BytesIO(data), **LIMITS)
    with pytest.raises(InvalidArchive) as caught:
        photo.read()
    assert caught.value.reason == "damaged"


def test_one_photo_that_is_too_large_is_read_no_further_than_that_shows() -> None:
    [photo] = archive_photos(zipped("a.jpg", content=bytes(MAX_BYTES + 1000)), **LIMITS)
    assert photo.size == MAX_BYTES + 1000
    assert len(photo.read()) == MAX_BYTES + 1


@pytest.mark.parametrize(
    "name", ["../a.jpg", "x/../../a.jpg", "/etc/passwd", "..\\a.jpg", "C:\\a.jpg", "\\\\host\\a.jpg"]
)
def test_names_that_lead_elsewhere(name: str) -> None:
    error = refusal(zipped("good.jpg", name))
    assert error.reason == "unsafe_name"


def test_names_are_shown_printable_and_not_without_end() -> None:
    [odd, long] = archive_photos(zipped("a\x1b[31m\n.jpg", "x" * 300 + ".jpg"), **LIMITS)
    assert odd.name == "a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}.jpg"
    assert len(long.name) == archives.MAX_NAME_LENGTH
    assert long.name.endswith("x.jpg")


def flip_flag(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[changed.index(b"PK\x03\x04") + 6] |= bit
    changed[changed.index(b"PK\x01\x02") + 8] |= bit
    return bytes(changed)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: io.BytesIO(flip_flag(zipped("a.jpg").getvalue(), 0x1)), "encrypted"),
        (lambda: zipped("a.jpg", compression=zipfile.ZIP_BZIP2), "unsupported"),
        (lambda: zipped("a.jpg", compression=zipfile.ZIP_LZMA), "unsupported"),
    ],
)
def test_what_would_need_more_than_unpacking(make: Callable[[], io.BytesIO], reason: str) -> None:
    assert refusal(make()).reason == reason


def test_a_flipped_bit_is_found_when_it_is_read() -> None:
    data = bytearray(zipped("a.jpg", content=b"photo" * 100, compression=zipfile.ZIP_STORED).getvalue())
    data[100] ^= 1
    [photo] = archive_photos(io.BytesIO(bytes(data)), **LIMITS)
    with pytest.raises(InvalidArchive, match=r"a\.jpg in the archive is damaged"):
        photo.read()
