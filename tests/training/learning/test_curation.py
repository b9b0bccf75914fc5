"""What one person, and one photo, can do to a training set; and that held-out photos stay held out."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace

import numpy as np
import pytest

from captioner.inference.likeness.copies import PhotoLooks
from training.learning.curation import (
    FREE_ROWS,
    FeedbackRow,
    authors_cap,
    groups_split,
    rows_curate,
)


def row(number: int, author: str = "", photo: str = "", **said) -> FeedbackRow:
    said = said or {"ideal": f"caption number {number}"}
    return FeedbackRow(number, photo or f"photo{number}", author or f"author{number}", "logged", "v1", **said)


def hashes_of(rows: list[FeedbackRow]) -> dict[str, str]:
    """Hashes far apart, one per photo."""
    return {r.photo: hashlib.sha256(r.photo.encode()).hexdigest()[:16] for r in rows}


def curate(rows: list[FeedbackRow], **options):
    return rows_curate(rows, hashes_of(rows), salt="salt", **options)


def visits(count: int, first: int = 0, cookies: int = 1, name: str = "cookie") -> list[FeedbackRow]:
    """Rows of anonymous visitors."""
    return [replace(row(first + n, author=f"{name}{n % cookies}"), anonymous=True) for n in range(count)]


def kept_share(rows: list[FeedbackRow]) -> float:
    return len(curate(rows).rows) / len(rows)


@pytest.mark.parametrize(
    ("people", "each"), [(1, 200), (2, 100), (5, 40), (10, 100), (12, 67), (100, 10), (4, 300), (1, 1000)]
)
def test_teams_keep_what_they_wrote(people: int, each: int) -> None:
    assert kept_share([row(n, author=f"person{n % people}") for n in range(people * each)]) == 1


def test_up_to_two_hundred_rows_nobody_is_capped_however_they_are_shared_out() -> None:
    assert kept_share(visits(FREE_ROWS)) == 1
    assert kept_share(visits(FREE_ROWS - 3) + [row(900 + n) for n in range(3)]) == 1


@pytest.mark.parametrize("sent", [50, 1000, 9000])
def test_a_flooding_cookie_among_a_hundred_people_gets_one_percent(sent: int) -> None:
    people = [row(n, author=f"person{n % 100}") for n in range(1000)]
    snapshot = curate(people + visits(sent, first=5000))
    for split in ("train", "holdout"):
        part = snapshot.of(split)
        assert sum(r.anonymous for r in part) <= 0.011 * len(part)
    assert len(people) == sum(not r.anonymous for r in snapshot.rows)


@pytest.mark.parametrize("each", [1, 10])
def test_a_flooding_cookie_among_a_hundred_cookies_gets_little_more(each: int) -> None:
    kept = curate(visits(100 * each, cookies=100) + visits(1000, first=5000, name="flood")).rows
    assert 0 < sum(r.author == "flood0" for r in kept) <= 0.05 * len(kept)
    assert len({r.author for r in kept}) > 90


def test_many_cookies_of_one_person_get_ten_percent_together() -> None:
    people = [row(n, author=f"person{n % 20}") for n in range(1000)]
    kept = curate(people + visits(5000, first=5000, cookies=2500)).rows
    assert 0.08 < sum(r.anonymous for r in kept) / len(kept) < 0.11


def test_a_signed_in_person_gets_a_fifth_of_what_many_wrote() -> None:
    people = [row(n, author=f"person{n % 50}") for n in range(1000)]
    kept = curate(people + [row(5000 + n, author="busy") for n in range(5000)]).rows
    assert 0.15 < sum(r.author == "busy" for r in kept) / len(kept) <= 0.21


def test_who_is_capped_keeps_the_newest_and_the_reasons_are_told() -> None:
    people = [row(n, author=f"person{n % 50}") for n in range(1000)]
    snapshot = curate(people + visits(500, first=5000))
    kept = [r.feedback for r in snapshot.of("train") if r.anonymous]
    sent = [r.feedback for r in visits(500, first=5000)]
    assert kept == [n for n in sent if n in kept][-len(kept) :]
    assert max(kept) > 5480
    assert set(snapshot.left_out.values()) == {"author_cap"}
    assert set(snapshot.left_out) == set(sent) - {r.feedback for r in snapshot.rows}


def test_one_cookie_alone_is_not_forgotten_at_row_two_hundred_and_one() -> None:
    assert len(curate(visits(1000)).rows) >= FREE_ROWS


def test_each_kind_is_capped_against_its_own_kind() -> None:
    """A thousand corrections let nobody rate more, nor thousands of ratings teach more."""
    corrections = [row(n, author=f"person{n % 100}") for n in range(2000)]
    ratings = [row(10_000 + n, author=f"rater{n % 100}", rating=7) for n in range(6000)]
    flood = visits(900, first=20_000)
    rated = [replace(row(30_000 + n, author="cookie0", rating=3), anonymous=True) for n in range(900)]
    train = curate(corrections + ratings + flood + rated).of("train")
    for kind in ("correction", "rating"):
        own = [r.author for r in train if r.kind == kind]
        assert 5 < own.count("cookie0") <= 0.011 * len(own)


def test_who_floods_takes_nobody_elses_place() -> None:
    """Neither by saying the same words later, nor by saying something else of photos that have enough captions."""
    honest = [row(n, author=f"person{n % 60}", photo=f"p{n % 60}") for n in range(240)]
    copies = [row(300 + n, author="hostile", photo=r.photo, ideal=r.ideal) for n, r in enumerate(honest)]
    others = [row(1000 + n, author="hostile", photo=f"p{n % 60}") for n in range(1000)]

    def taught(rows: list[FeedbackRow]) -> set[int]:
        return {r.feedback for r in curate(rows).of("train") if r.author != "hostile"}

    assert taught(honest + copies + others) == taught(honest)


def test_trusted_authors_are_not_capped() -> None:
    staff = [replace(row(n, author="staff", ideal="x"), trusted=True) for n in range(500)]
    assert len(authors_cap(staff + [row(900 + n, author=f"a{n % 10}") for n in range(50)])) == 550


def test_saying_the_same_again_counts_once_and_the_newest_counts() -> None:
    rows = [
        row(1, author="ada", photo="p", ideal="first thought"),
        row(2, author="ada", photo="p", ideal="second thought"),
        row(3, author="bob", photo="p", ideal="Second  thought"),
    ]
    kept = curate(rows)
    assert [r.feedback for r in kept.rows] == [3]
    assert list(kept.left_out.values()) == ["duplicate"] * 2


def test_a_popular_photo_speaks_four_times_at_most() -> None:
    rows = [row(n, photo="popular") for n in range(10)]
    kept = curate(rows)
    assert len(kept.rows) == 4
    assert kept.counts["left_out_photo_cap"] == 6


def test_no_chain_of_small_changes_joins_what_is_different() -> None:
    hashes = {
        "a": "0f0f0f0f0f0f0000",
        "b": "0f0f0f0f0f0f000f",
        "c": "0f0f0f0f0f0f00ff",
        "far": "f0f0f0f000000000",
    }
    groups = PhotoLooks(hashes, {}).groups()
    assert groups["a"] == groups["b"] == "a"
    assert groups["c"] == "c", "it is like b, and not like a"
    assert groups["far"] == "far"


def test_photos_of_different_things_on_a_plain_ground_are_no_group() -> None:
    """Their hashes are those of the ground: few bits, all of which may be the same."""
    hashes = {f"p{n}": f"{(n % 7) << 30:016x}" for n in range(1150)}
    assert len(set(PhotoLooks(hashes, {}).groups().values())) == 1150


def test_photos_are_a_group_where_hash_and_encoder_agree() -> None:
    generator = np.random.default_rng(0)
    looks = generator.normal(size=(3, 40))
    looks[1] = looks[0] + 0.3 * looks[1]
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    hashes = dict.fromkeys("abcd", "0f0f0f0f0f0f0000")
    groups = PhotoLooks(hashes, dict(zip("abc", looks.astype(np.float16), strict=True))).groups()
    assert groups == {"a": "a", "b": "a", "c": "c", "d": "a"}, "of d nothing but the hash is known"


def copied_photos(count: int, noise: float) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Photos and a smaller, worse copy of each, as hash and encoder see such: 10 of 64 bits differ."""
    generator, drawn = np.random.default_rng(0), random.Random(0)
    hashes, vectors = {}, {}
    for name in [f"p{n}" for n in range(count)]:
        bits = drawn.getrandbits(64)
        look = generator.normal(size=352)
        worse = look + noise * generator.normal(size=352)
        changed = sum(1 << bit for bit in drawn.sample(range(64), 10))
        hashes |= {name: f"{bits:016x}", f"{name} copy": f"{bits ^ changed:016x}"}
        vectors |= {
            photo: (seen / np.linalg.norm(seen)).astype(np.float16)
            for photo, seen in ((name, look), (f"{name} copy", worse))
        }
    return hashes, vectors


def test_copies_that_differ_in_many_bits_are_a_group_where_the_encoder_saw_them() -> None:
    """Of real copies, 0.8 of the size at quality 70, four in five differ in more than `NEAR_BITS`."""
    hashes, vectors = copied_photos(50, noise=0.5)
    groups = PhotoLooks(hashes, vectors).groups()
    assert all(groups[f"p{n} copy"] == groups[f"p{n}"] == f"p{n}" for n in range(50))
    assert len(set(PhotoLooks(hashes, {}).groups().values())) == 100, "by their hashes alone they differ"


def test_what_pairs_with_a_held_out_photo_never_trains_though_it_is_not_in_its_group() -> None:
    """What is like one photo of a group, and not like all of it, is in a group of its own."""
    generator = np.random.default_rng(1)
    first, turned = generator.normal(size=(2, 352))
    seen = {"first": first, "middle": first + 0.8 * turned, "last": first + 3 * turned}
    vectors = {
        photo: (look / np.linalg.norm(look)).astype(np.float16)
        for photo, look in (seen | {"other": generator.normal(size=352)}).items()
    }
    hashes = dict.fromkeys(seen, "0f0f0f0f0f0f0000") | {"other": "123456789abcdef0"}
    rows = [row(n, photo=photo) for n, photo in enumerate(hashes)]
    assert PhotoLooks(hashes, vectors).groups() == {
        "first": "first",
        "middle": "first",
        "last": "last",
        "other": "other",
    }
    salt = next(
        salt
        for salt in map(str, range(1000))
        if groups_split({name: name for name in ("last", "other", "first")}, salt=salt)
        == {"first": "train", "last": "train", "other": "train"}
    )
    every = rows_curate(rows, hashes, salt=salt, vectors=vectors)
    assert (len(every.of("train")), every.left_out) == (4, {})
    split = rows_curate(rows, hashes, salt=salt, vectors=vectors, held_out={"middle"})
    assert {each.photo for each in split.of("holdout")} == {"first", "middle"}
    assert {each.photo for each in split.of("train")} == {"other"}
    assert split.left_out == {2: "held_out_copy"}
    assert split.counts["left_out_held_out_copy"] == 1


def test_groups_are_those_that_comparing_every_pair_gives() -> None:
    generator = random.Random(1)
    values = [generator.getrandbits(64) for _ in range(60)]
    values += [value ^ (1 << generator.randrange(64)) ^ (1 << generator.randrange(64)) for value in values]
    hashes = {f"p{n}": f"{value:016x}" for n, value in enumerate(values)}
    groups = PhotoLooks(hashes, {}).groups()
    for n in range(60):
        assert groups[f"p{n}"] == groups[f"p{n + 60}"] == f"p{n}"
    assert len(set(groups.values())) == 60


def test_like_photos_are_never_on_both_sides() -> None:
    near = {f"p{n}": f"{0xF0F0F0F000000000 | (n << 12) | (n % 2):016x}" for n in range(0, 4000, 32)}
    rows = [row(n, photo=photo) for n, photo in enumerate(near)]
    snapshot = rows_curate(rows, near, salt="x")
    by_group = {}
    for r in snapshot.rows:
        assert by_group.setdefault(r.group, r.split) == r.split


def test_a_fifth_of_the_groups_is_held_out_and_another_salt_holds_out_others() -> None:
    groups = {f"p{n}": f"p{n}" for n in range(5000)}
    one, other = groups_split(groups, salt="one"), groups_split(groups, salt="other")
    held = [group for group, split in one.items() if split == "holdout"]
    assert 0.18 < len(held) / 5000 < 0.22
    assert one != other


def test_what_was_held_out_once_never_trains_even_under_another_salt_or_in_a_larger_group() -> None:
    groups = {f"p{n}": f"p{n}" for n in range(500)} | {"p7": "p3"}
    split = groups_split(groups, salt="new", held_out={"p7", "p9", "gone"})
    assert split["p3"] == split["p9"] == "holdout"


def test_the_same_feedback_gives_the_same_hash_whatever_its_order() -> None:
    rows = [row(n) for n in range(40)]
    assert curate(rows).sha256 == curate(rows[::-1]).sha256
    assert curate(rows).sha256 != curate(rows[:-1]).sha256


# --- What judges ---


@pytest.mark.parametrize(
    ("logged", "ideal", "light"),
    [
        ("a dog runs on grass", "a brown dog runs on grass", True),
        ("a dog runs on grass", "two children play with a ball", False),
        ("a dog runs on grass", "a brown and white dog leaps over a hurdle", False),
        ("一只狗在草地上跑", "一只狗在草地上跑步", True),
    ],
)
def test_an_edit_of_a_word_or_two_is_light(logged: str, ideal: str, light: bool) -> None:
    assert replace(row(1), logged=logged, ideal=ideal).is_light_edit == light
