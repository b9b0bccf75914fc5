"""The names that strangers' archives give their files, read as they were meant. No Django.

A ZIP says of a name only whether it is UTF-8 (APPNOTE 4.4.4), and often not even that: macOS never does, and others
write the code page of their machine.
"""

import contextlib
import re
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence

MAX_NAME_LENGTH = 255  # characters
CODE_PAGES = (
    *("cp437", "cp850", "cp852", "cp866", "cp932", "cp936", "cp949", "cp950"),
    *("cp1250", "cp1251", "cp1252"),
)

_IS_UTF8 = 0x800  # bit of the general purpose flags
_UNICODE_PATH = 0x7075  # an extra field (APPNOTE 4.6.9)
# Tried in this order where nobody says which; beside each its alphabets, as Unicode's names of their letters begin.
_GUESSES = (
    ("cp437", {"LATIN"}),
    ("cp866", {"CYRILLIC"}),
    ("cp932", {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "FULLWIDTH", "IDEOGRAPHIC"}),
    ("cp1251", {"CYRILLIC"}),
    ("cp1252", {"LATIN"}),
)
# Letters, and what is not ASCII at all. Read with the wrong code page, words mix alphabets, or have signs and frames.
_WORD = re.compile(r"(?:[^\W\d_]|[^\x00-\x7f])+")
_FRAMES = re.compile(
    "[\N{BOX DRAWINGS LIGHT HORIZONTAL}-\N{QUADRANT UPPER RIGHT AND LOWER LEFT AND LOWER RIGHT}]"
)


def names_read(entries: Sequence[zipfile.ZipInfo], code_page: str | None = None) -> list[str]:
    """The names of an archive's entries. `code_page`, one of CODE_PAGES, is what its sender says they are in.

    Without it, those that are valid UTF-8 are that, and the others are in the code page that they look most like.
    """
    names: list[str | bytes] = []
    for entry in entries:
        # What zipfile takes for code page 437 are the very bytes: it has a letter for each.
        name: str | bytes = entry.orig_filename
        if not entry.flag_bits & _IS_UTF8:
            raw = entry.orig_filename.encode("cp437")
            name = _unicode_path(entry.extra, raw) or raw
            if code_page is None and isinstance(name, bytes):
                with contextlib.suppress(UnicodeDecodeError):
                    name = name.decode()
        names.append(name)
    if code_page is None:
        unknown = [name for name in names if isinstance(name, bytes)]
        code_page = next((page for page, alphabets in _GUESSES if _fits(unknown, page, alphabets)), "cp437")
    return [name if isinstance(name, str) else name.decode(code_page, "replace") for name in names]


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """The name that an extra field gives once more, in UTF-8; None where it belongs to another or is damaged."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        if kind == _UNICODE_PATH and extra[4:9] == b"\x01" + struct.pack("<L", zlib.crc32(raw)):
            try:
                return extra[9 : 4 + size].decode()
            except UnicodeDecodeError:
                return None
        extra = extra[4 + size :]
    return None


def _fits(names: Sequence[bytes], code_page: str, alphabets: set[str]) -> bool:
    """Whether all words of these names are of these alphabets, if read with this code page."""
    try:
        text = "/".join(name.decode(code_page) for name in names)
    except UnicodeDecodeError:
        return False
    words = [word for word in _WORD.findall(text) if len(word) > 1 and not word.isascii()]
    letters = set("".join(words))
    if _FRAMES.search(text) or ("LATIN" not in alphabets and any(letter.isascii() for letter in letters)):
        return False
    return all(unicodedata.name(letter, "?").split()[0] in alphabets for letter in letters)


def name_shown(name: str) -> str:
    """The name fit to be stored and shown: printable, in one Unicode form, and its end where it is too long."""
    letters = unicodedata.normalize("NFC", name)
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in letters)
    return shown[-MAX_NAME_LENGTH:]
