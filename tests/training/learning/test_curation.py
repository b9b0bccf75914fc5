"""What one person, and one photo, can do to a training set; and that held-out photos stay held out."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

import pytest

from training.learning.curation import FeedbackRow, authors_cap, groups_split, photos_group, rows_curate


def row(number: int, author: str = "", photo: str = "", **said) -> FeedbackRow:
    said = said or {"ideal": f"caption number {number}"}
    return FeedbackRow(number, photo or f"photo{number}", author or f"author{number}", "logged", "v1", **said)


def hashes_of(rows: list[FeedbackRow]) -> dict[str, str]:
    """Hashes far apart, one per photo."""
    return {r.photo: hashlib.sha256(r.photo.encode()).hexdigest()[:16] for r in rows}


def curate(rows: list[FeedbackRow], **options):
    return rows_curate(rows, hashes_of(rows), salt="salt", **options)


def test_one_hostile_author_with_ninety_percent_of_the_feedback_gets_one_percent_of_the_training_set() -> (
    None
):
    honest = [row(n, author=f"person{n % 150}") for n in range(1000)]
    hostile = [row(n, author="hostile") for n in range(1000, 10_000)]
    train = curate(honest + hostile).of("train")
    share = sum(r.author == "hostile" for r in train) / len(train)
    assert 0 < share <= 0.01
    assert len({r.author for r in train}) > 100, "the others are still there"


@pytest.mark.parametrize("honest", [3, 10, 40, 90, 99, 120, 300, 499, 501, 1500])
@pytest.mark.parametrize("people", [1, 7, 150])
def test_that_holds_for_sets_of_every_size(honest: int, people: int) -> None:
    rows = [row(n, author=f"person{n % people}") for n in range(honest)]
    flood = [row(n, author="hostile") for n in range(honest, 10 * honest)]
    train = curate(rows + flood).of("train")
    assert sum(r.author == "hostile" for r in train) <= 0.01 * len(train)


def teachers(rows: list[FeedbackRow]) -> list[str]:
    """Authors of what trains: ratings are counted apart, and as a rule do not train."""
    return [r.author for r in curate(rows).of("train") if r.ideal]


@pytest.mark.parametrize("hostile", [51, 60, 45_450])
def test_other_peoples_ratings_give_nobody_a_larger_share_of_the_corrections(hostile: int) -> None:
    corrections = [row(n, author=f"person{n}") for n in range(50)]
    ratings = [row(1000 + n, author=f"rater{n % 500}", rating=7) for n in range(5000)]
    flood = [row(10_000 + n, author="hostile") for n in range(hostile)]
    assert "hostile" not in teachers(corrections + ratings + flood)


def test_whoever_sent_most_of_all_feedback_gets_the_share_of_each_kind() -> None:
    """Also of the kind that others sent more of: ratings do not hide who floods."""
    corrections = [row(n, author=f"person{n}") for n in range(50)]
    flood = [row(1000 + n, author="hostile") for n in range(45)]
    ratings = [row(10_000 + n, author="hostile", rating=1) for n in range(900)]
    assert "hostile" not in teachers(corrections + flood + ratings)


def test_each_kind_is_capped_against_its_own_kind() -> None:
    """A thousand corrections let nobody rate more, nor thousands of ratings teach more."""
    corrections = [row(n, author=f"person{n % 1000}") for n in range(2000)]
    ratings = [row(10_000 + n, author=f"rater{n % 1000}", rating=7) for n in range(6000)]
    busy = [row(20_000 + n, author="busy") for n in range(900)]
    rater = [row(30_000 + n, author="busy", rating=3) for n in range(900)]
    train = curate(corrections + ratings + busy + rater).of("train")
    for kind in (True, False):
        own = [r.author for r in train if bool(r.ideal) == kind]
        assert 5 < own.count("busy") <= 0.01 * len(own)


def test_who_floods_takes_nobody_elses_place() -> None:
    """Neither by saying the same words later, nor by saying something else of photos that have enough captions."""
    honest = [row(n, author=f"person{n % 60}", photo=f"p{n % 60}") for n in range(240)]
    copies = [row(300 + n, author="hostile", photo=r.photo, ideal=r.ideal) for n, r in enumerate(honest)]
    others = [row(1000 + n, author="hostile", photo=f"p{n % 60}") for n in range(1000)]

    def taught(rows: list[FeedbackRow]) -> set[int]:
        return {r.feedback for r in curate(rows).of("train") if r.author != "hostile"}

    assert taught(honest + copies + others) == taught(honest)


def test_the_holdout_is_capped_as_well() -> None:
    honest = [row(n, author=f"person{n % 150}") for n in range(3000)]
    hostile = [row(n, author="hostile") for n in range(3000, 30_000)]
    holdout = curate(honest + hostile).of("holdout")
    assert sum(r.author == "hostile" for r in holdout) / len(holdout) <= 0.01


def test_small_installations_keep_a_few_rows_of_each_author_the_newest() -> None:
    kept = authors_cap([row(n, author="only one") for n in range(30)], author_rows=5)
    assert [r.feedback for r in kept] == [25, 26, 27, 28, 29]


def test_trusted_authors_are_not_capped() -> None:
    rows = [row(n, author="staff", ideal="x", trusted=True) for n in range(50)]
    assert len(authors_cap(rows, author_rows=1)) == 50


@pytest.mark.parametrize("sizes", [(1,), (5, 5), (400, 3, 2, 1), (50, 60, 70, 2000)])
def test_nobody_exceeds_the_cap_and_nobody_below_it_loses_a_row(sizes: tuple[int, ...]) -> None:
    rows = [row(n * 10_000 + i, author=f"a{n}") for n, size in enumerate(sizes) for i in range(size)]
    kept = Counter(r.author for r in authors_cap(rows, author_rows=5))
    cap = max(5, int(0.01 * kept.total()))
    for n, size in enumerate(sizes):
        assert kept[f"a{n}"] <= cap
        assert kept[f"a{n}"] == size or kept[f"a{n}"] >= 5


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


def test_photos_that_look_the_same_share_a_group_also_by_way_of_others() -> None:
    hashes = {
        "a": "0000000000000000",
        "b": "000000000000000f",
        "c": "00000000000000ff",
        "far": "ffffffff00000000",
    }
    groups = photos_group(hashes)
    assert groups["a"] == groups["b"] == groups["c"] == "a"
    assert groups["far"] == "far"


def test_groups_are_those_that_comparing_every_pair_gives() -> None:
    generator = random.Random(1)
    values = [generator.getrandbits(64) for _ in range(60)]
    values += [value ^ (1 << generator.randrange(64)) ^ (1 << generator.randrange(64)) for value in values]
    hashes = {f"p{n}": f"{value:016x}" for n, value in enumerate(values)}
    groups = photos_group(hashes)
    for n in range(60):
        assert groups[f"p{n}"] == groups[f"p{n + 60}"] == f"p{n}"
    assert len(set(groups.values())) == 60


def test_like_photos_are_never_on_both_sides() -> None:
    near = {f"p{n}": f"{(n << 32) | copy:016x}" for n in range(0, 4000, 64) for copy in (0,)}
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
