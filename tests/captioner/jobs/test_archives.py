"""ZIP archives from strangers: refused by what their directory says, before anything is unpacked."""

import contextlib
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable

import pytest

from captioner.exceptions import InvalidArchive
from captioner.intake.limits import MAX_BYTES
from captioner.jobs.archives import archive_photos
from captioner.jobs.names import MAX_NAME_LENGTH

LIMITS = {"max_photos": 10, "max_bytes": 50_000_000}


def zipped(*names: str, content: bytes = b"photo", compression: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name in names:
            archive.writestr(name, content)
    return file


def raw_zip(*entries: tuple[bytes, bytes], flags: int = 0, extra: bytes = b"") -> io.BytesIO:
    """An archive with these names and contents, which no program need ever have written."""
    data = directory = b""
    for name, content in entries:
        at, size = len(data), len(content)
        head = (20, flags, 0, 0, 0x5A21, zlib.crc32(content), size, size, len(name), len(extra))
        head = struct.pack("<HHHHHIIIHH", *head)
        data += b"PK\3\4" + head + name + extra + content
        directory += b"PK\1\2\x14\3" + head + struct.pack("<HHHII", 0, 0, 0, 0, at) + name + extra
    count = len(entries)
    tail = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(data), 0)
    return io.BytesIO(data + directory + b"PK\5\6" + tail)


def names(file: io.BytesIO, code_page: str | None = None) -> list[str]:
    photos = archive_photos(file, code_page=code_page, **LIMITS)
    assert [photo.read() for photo in photos] == [b"photo"] * len(photos)
    return [photo.name for photo in photos]


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
    assert len(long.name) == MAX_NAME_LENGTH
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


@pytest.mark.parametrize("name", [b"", b"\0", b".", b"/", b"./", b"\\", b"\0/", b"\\\\", b"folder/.\\"])
def test_what_has_neither_name_nor_bytes_is_no_photo(name: bytes) -> None:
    assert names(raw_zip((name, b""), (b"a.jpg", b"photo"))) == ["a.jpg"]


@pytest.mark.parametrize("name", [b"", b"\0\0", b"."])
def test_a_file_without_a_name(name: bytes) -> None:
    error = refusal(raw_zip((name, b"photo"), (b"a.jpg", b"photo")))
    assert error.reason == "unsafe_name"
    assert "has no name" in str(error)


def test_folders_are_told_by_either_slash() -> None:
    file = raw_zip((b"album\\", b""), (b"album\\sub\\", b""), (b"album\\a.jpg", b"photo"))
    assert names(file) == ["album\\a.jpg"]


def test_names_in_utf8_need_no_mark() -> None:
    decomposed = "Cafe\N{COMBINING ACUTE ACCENT} Zu\N{COMBINING DIAERESIS}rich.jpg"
    assert names(raw_zip((decomposed.encode(), b"photo"))) == ["Café Zürich.jpg"]
    assert names(raw_zip((decomposed.encode(), b"photo"), flags=0x800)) == ["Café Zürich.jpg"]
    assert names(raw_zip(("写真.jpg".encode(), b"photo"), ("é.jpg".encode("cp850"), b"photo"))) == [
        "写真.jpg",
        "é.jpg",
    ]


@pytest.mark.parametrize(
    ("name", "code_page"),
    [
        ("Café 50°.jpg", "cp437"),
        ("Übung.jpg", "cp850"),
        ("Фото на даче 2.jpg", "cp866"),
        ("写真.jpg", "cp932"),
        ("旅行の写真 IMG01.jpg", "cp932"),
        ("Фото.jpg", "cp1251"),
        ("Mädchen.jpg", "cp1252"),
    ],
)
def test_names_in_a_local_code_page_are_guessed(name: str, code_page: str) -> None:
    assert names(raw_zip((b"a.jpg", b"photo"), (name.encode(code_page), b"photo"))) == ["a.jpg", name]


@pytest.mark.parametrize(
    ("name", "code_page"),
    [("照片.jpg", "cp936"), ("사진.jpg", "cp949"), ("žlutý kůň.jpg", "cp852"), ("ДАЧА.jpg", "cp866")],
)
def test_what_cannot_be_guessed_its_sender_can_say(name: str, code_page: str) -> None:
    assert names(raw_zip((name.encode(code_page), b"photo"))) != [name]
    assert names(raw_zip((name.encode(code_page), b"photo")), code_page) == [name]


def test_a_name_may_be_given_once_more_in_utf8() -> None:
    def extra(name: bytes, of: bytes) -> bytes:
        return struct.pack("<HHBL", 0x7075, 5 + len(name), 1, zlib.crc32(of)) + name

    shown = "写真.jpg"
    assert names(raw_zip((b"__.jpg", b"photo"), extra=extra(shown.encode(), b"__.jpg"))) == [shown]
    assert names(raw_zip((b"__.jpg", b"photo"), extra=extra(shown.encode(), b"other"))) == ["__.jpg"]
    assert names(raw_zip((b"__.jpg", b"photo"), extra=extra(b"\xff", b"__.jpg"))) == ["__.jpg"]


def test_names_marked_as_utf8_that_are_not() -> None:
    error = refusal(raw_zip((b"\xff\xfe.jpg", b"photo"), flags=0x800))
    assert error.reason == "damaged"
    assert "UTF-8" in str(error)


def test_whatever_a_directory_holds_is_refused_or_read() -> None:
    chance = random.Random(7)
    whole = zipped("a.jpg", "b/ü.jpg", "c/").getvalue()
    start = whole.index(b"PK\1\2")
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 2, 4))):
            data[chance.randrange(start, len(data))] = chance.choice((0, 0xFF, chance.randrange(256)))
        with contextlib.suppress(InvalidArchive):
            for photo in archive_photos(io.BytesIO(data), **LIMITS):
                photo.read()
