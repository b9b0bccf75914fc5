"""Vectors of photos out of the pass that captions them; which of many are alike; what they say about a caption."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from captioner.exceptions import IncompatibleModel
from captioner.inference import predictor as predictors
from captioner.inference.drawings import drawn_images
from captioner.inference.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel
from captioner.inference.likeness import copies, ranking
from captioner.inference.likeness.embedding import Centre, Embedder, centre_from, centre_read, pooled
from captioner.inference.likeness.index import PLAIN_ROWS, LikenessIndex, Remembered
from captioner.inference.loading import load_model
from captioner.inference.predictor import Predictor
from captioner.inference.types import Candidate, DecodingParameters
from models_registry.bundled import STARTER_DIR

ONE, THREE = DecodingParameters(1, 1, 4), DecodingParameters(1, 3, 4)


def pixels_of(predictor: Predictor, count: int = 3) -> torch.Tensor:
    return torch.stack([predictor.preprocess(image) for image in drawn_images(count)])


def floats(vector: bytes) -> np.ndarray:
    return np.frombuffer(vector, "<f2").astype(np.float32)


# --- Vectors ---


def test_the_vector_is_the_photos_whatever_is_captioned_with_it_and_however(predictor: Predictor) -> None:
    pixels = pixels_of(predictor)
    together = [floats(seen.vector) for seen in predictor.look(pixels, THREE)]
    alone = [floats(predictor.look(photo[None], ONE)[0].vector) for photo in pixels]
    assert predictor.encoder
    for one, other in zip(together, alone, strict=True):
        assert abs(np.linalg.norm(one) - 1) < 1e-2
        assert one @ other > 0.999
    assert together[0] @ together[1] < 0.9


def test_looking_says_what_predicting_does(predictor: Predictor) -> None:
    pixels = pixels_of(predictor)
    captions = predictor.predict(pixels, DecodingParameters(2, 3, 6))
    assert [seen.beams[:2] for seen in predictor.look(pixels, DecodingParameters(2, 3, 6))] == captions


@pytest.fixture
def eye() -> EfficientNetLiteModel:
    torch.manual_seed(0)
    config = EfficientNetLiteConfig(
        image_size=64,
        stem=4,
        widths=(4, 4, 8, 8, 8, 8, 16),
        depths=(1,) * 7,
        head=16,
        hidden_size=8,
        initializer_range=0.2,
    )
    return EfficientNetLiteModel(config).eval()


class Captioner(torch.nn.Module):
    """An encoder, and what else a captioner has."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.decoder, self.encoder = torch.nn.Linear(2, 2), encoder


def no_drawings() -> None:
    raise AssertionError("No drawing was to be looked at.")


def test_of_an_eye_the_backbone_is_watched_and_its_centre_taken_away(eye: EfficientNetLiteModel) -> None:
    photos = torch.rand(5, 3, 64, 64)
    with torch.inference_mode():
        means = pooled(eye.backbone(photos))
        centre = centre_from(eye.backbone, [means[:2], means[2:]])
        embedder = Embedder(Captioner(eye), centre, no_drawings)
        with embedder.watching():
            eye(photos)
        vectors = np.stack([floats(vector) for vector in embedder.vectors(5)])
    expected = torch.nn.functional.normalize(means - means.mean(0), dim=1).numpy()
    assert centre.photos == 5
    assert np.abs(vectors - expected).max() < 2e-3


def test_vectors_survive_another_decoder_and_attention_but_no_other_backbone(
    eye: EfficientNetLiteModel,
) -> None:
    before = Embedder(Captioner(eye), None, no_drawings).encoder
    with torch.no_grad():
        eye.layers[0].inner.weight.add_(1.0)
    assert Embedder(Captioner(eye), None, no_drawings).encoder == before
    kept = centre_from(eye.backbone, [torch.ones(1, 3)])
    with_centre = Embedder(Captioner(eye), kept, no_drawings).encoder
    with torch.no_grad():
        eye.backbone.stem.convolution.weight.add_(1.0)
    changed = Embedder(Captioner(eye), None, no_drawings).encoder
    assert len({before, with_centre, changed}) == 3
    # A centre that was made for other weights is not used.
    assert Embedder(Captioner(eye), kept, no_drawings).encoder == changed


def test_a_model_without_an_encoder_has_no_vectors() -> None:
    embedder = Embedder(Captioner(torch.nn.Linear(1, 1)), None, no_drawings)
    with embedder.watching():
        pass
    assert (embedder.encoder, embedder.vectors(2)) == ("", [b"", b""])


def test_a_centre_is_kept_beside_the_weights(tmp_path: Path) -> None:
    assert centre_read(tmp_path) is None
    centre = Centre("abc", 2, (0.5, -1.0))
    centre.write(tmp_path)
    assert centre_read(tmp_path) == centre


@pytest.mark.parametrize("text", ["{", "{}", '{"encoder": "a", "photos": 1, "mean": [NaN]}', "[1]"])
def test_a_broken_centre_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "likeness.json").write_text(text)
    with pytest.raises(IncompatibleModel, match=r"likeness\.json"):
        centre_read(tmp_path)


def test_where_nothing_is_remembered_words_are_made_of_what_is_answered_alone(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = pixels_of(predictor)
    answered = predictor.predict(pixels, THREE)
    made: list[object] = []
    merge = predictors.merge_tokens
    monkeypatch.setattr(predictors, "merge_tokens", lambda *given: made.append(given) or merge(*given))
    monkeypatch.setattr(predictor, "_remembers", False)
    seen = predictor.look(pixels, THREE)
    assert [each.beams for each in seen] == answered
    assert {each.vector for each in seen} == {b""}
    assert predictor.encoder == ""
    assert len(made) == len(pixels) * THREE.num_captions


# --- Which of many ---


def rows(count: int, width: int = 96, owners: int = 4) -> list[Remembered]:
    """Some directions are common and others rare, as in photos."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(count, width)) / np.arange(1, width + 1) ** 0.5
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    hashes = generator.integers(0, 2**63, count)
    return [
        Remembered(number, vector.astype("<f2").tobytes(), f"{digits:016x}", (1 + number % owners, 0, 0))
        for number, (vector, digits) in enumerate(zip(vectors, hashes, strict=True))
    ]


@pytest.mark.parametrize("count", [1, 50, PLAIN_ROWS + 500], ids=["one", "few", "many"])
def test_a_photo_finds_itself_and_what_is_added_later(count: int) -> None:
    index, everything = LikenessIndex(), rows(count + 5)
    index.add(everything[:count])
    index.add(everything[count:])
    for one in (everything[0], everything[-1]):
        assert one.number in index.search(one.vector, one.difference_hash, None)
        assert one.number in index.search(one.vector, one.difference_hash, one.owner)
        assert one.number not in index.search(one.vector, one.difference_hash, (9, 0, 0))
    index.remove(frozenset({0}))
    assert 0 not in index.search(everything[0].vector, everything[0].difference_hash, None)
    assert len(index) == count + 4


def test_of_many_the_most_alike_are_found() -> None:
    index, everything = LikenessIndex(), rows(PLAIN_ROWS + 1000)
    index.add(everything)
    vectors = np.stack([floats(each.vector) for each in everything])
    shared = 0
    for number in range(20):
        exact = set(np.argsort(-(vectors @ vectors[number]))[:10].tolist())
        shared += len(exact & set(index.search(everything[number].vector, "0" * 16, None)))
    assert shared > 0.8 * 200


def test_an_empty_list_and_vectors_of_another_width_find_nothing() -> None:
    index = LikenessIndex()
    index.add([])
    assert index.search(b"\0\0" * 96, "0" * 16, None) == []
    index.add(rows(3))
    assert index.search(b"\0\0" * 8, "0" * 16, None) == []


def test_a_hundred_thousand_are_searched_in_milliseconds() -> None:
    index = LikenessIndex()
    some = rows(PLAIN_ROWS + 1, width=128)
    for start in range(0, 100_000, len(some)):
        index.add(
            [
                Remembered(start + n, each.vector, each.difference_hash, each.owner)
                for n, each in enumerate(some)
            ]
        )
    spent = []
    for each in some[:15]:
        started = time.thread_time()
        index.search(each.vector, each.difference_hash, each.owner)
        spent.append(time.thread_time() - started)
    # 3 ms on a machine with nothing else to do; other work empties its caches.
    assert min(spent) < 0.02


@pytest.mark.parametrize("width", [40, 352])
def test_all_pairs_of_copies_are_found_and_no_others(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the memory's rule has it for each pair: of photos, copies, ruined copies and plain grounds, by parts."""
    monkeypatch.setattr(copies, "CENTRED_FROM", 1000)
    monkeypatch.setattr(copies, "ONES", 7)
    monkeypatch.setattr(copies, "OTHERS", 50)
    generator = np.random.default_rng(0)
    places = np.arange(300) % 60  # five takes of each of 60 photos
    noise = generator.uniform(0, 1.5, 300)[:, None]
    looks = generator.normal(size=(60, width))[places] + noise * generator.normal(size=(300, width))
    looks = (looks / np.linalg.norm(looks, axis=1, keepdims=True)).astype("<f2")
    flips = (generator.random((300, 64)) < generator.uniform(0, 0.4, 300)[:, None]) @ (
        1 << np.arange(64, dtype=np.uint64)
    )
    hashes = generator.integers(0, 2**63, 60).astype(np.uint64)[places] ^ flips.astype(np.uint64)
    hashes[::9] = 3
    digits = [f"{each:016x}" for each in hashes.tolist()]
    found = copies.PhotoLooks(
        {str(n): each for n, each in enumerate(digits)}, {str(n): look for n, look in enumerate(looks)}
    ).pairs(np.arange(300), np.arange(300))
    wanted = {
        (one, other)
        for one in range(300)
        for other in range(300)
        if ranking.is_copy(
            ranking.likenesses(looks[one].tobytes(), [looks[other].tobytes()])[0],
            (digits[one], digits[other]),
        )
    }
    assert len(wanted) > 400
    assert {*zip(*map(np.ndarray.tolist, found), strict=True)} == wanted
    assert found[0].tolist() == sorted(found[0].tolist())


def test_the_bundled_weights_have_a_centre_that_is_theirs(caplog: pytest.LogCaptureFixture) -> None:
    """By the mean of drawings alone one pair of photos in a hundred would pass for copies of each other."""
    parts = load_model(STARTER_DIR)
    assert parts.centre is not None
    assert Embedder(parts.model, parts.centre, lambda: None).encoder
    assert caplog.records == [], "it was made for these weights"


def test_what_an_encoder_sees_in_all_photos_makes_no_copies_of_them() -> None:
    """Weights without a centre (`likeness.json`) point nearly the same way for any two photos."""
    generator = np.random.default_rng(0)
    looks = generator.normal(size=(300, 352)) + 10 * generator.normal(size=352)
    looks[1::2] = looks[::2] + 0.3 * generator.normal(size=(150, 352))  # every other one is a copy
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    # Of so alike hashes as people's photos of one room have.
    hashes = {str(n): f"{0x0F0F0F0F0F0F0F0F ^ int(generator.integers(0, 256)):016x}" for n in range(300)}
    found = copies.PhotoLooks(hashes, {str(n): look.astype("<f2") for n, look in enumerate(looks)}).groups()
    assert len(set(found.values())) == 150
    assert all(found[str(n)] == found[str(n + 1)] for n in range(0, 300, 2))


# --- What they say ---


@pytest.mark.parametrize(
    ("likeness", "bits", "expected"),
    [(0.95, 0, True), (0.8, 20, True), (0.8, 30, False), (0.6, 5, True), (0.6, 15, False), (0.3, 0, False)],
)
def test_a_copy_is_told_by_vector_and_hash_together(likeness: float, bits: int, expected: bool) -> None:
    digits = "00ff00ff00ff00ff"
    other = f"{int(digits, 16) ^ ((1 << bits) - 1) << 8:016x}"
    assert ranking.is_copy(likeness, (digits, other)) is expected


def test_the_hash_of_a_plain_ground_says_nothing() -> None:
    assert not ranking.is_copy(0.85, ("0" * 16, "0" * 16))
    assert ranking.is_copy(0.99, ("0" * 16, "0" * 16))


def beam(caption: str, mean: float) -> Candidate:
    return Candidate(caption, (), mean, (mean,))


BEAMS = [beam("a man on a road", -0.5), beam("a man on a surfboard", -0.6), beam("two dogs", -2.0)]


def test_neighbours_speak_for_the_beam_that_is_like_what_was_said_of_them() -> None:
    said = [
        ranking.Neighbour("a surfer on a surfboard", 0.7),
        ranking.Neighbour("a man on his surfboard", 0.6),
    ]
    assert ranking.beams_rank(BEAMS, said)[0] == 1


@pytest.mark.parametrize(
    "neighbours",
    [[], [ranking.Neighbour("a man on a surfboard", ranking.ALIKE)], [ranking.Neighbour("木の上の猫", 0.9)]],
    ids=["none", "unlike", "about something else"],
)
def test_else_the_models_own_order_stays(neighbours: list[ranking.Neighbour]) -> None:
    assert ranking.beams_rank(BEAMS, neighbours) == [0, 1, 2]


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    one, other, third = map(ranking.words_of, ("草の上の犬", "草の上の猫", "海と船"))
    assert ranking.agreement(one, other) > 0.5
    assert ranking.agreement(one, third) == 0
    assert ranking.agreement(ranking.words_of("A Dog."), ranking.words_of("a dog")) == 1


def test_the_file_of_a_centre_is_plain(tmp_path: Path) -> None:
    Centre("abc", 2, (0.5,)).write(tmp_path)
    assert json.loads((tmp_path / "likeness.json").read_text()) == {
        "encoder": "abc",
        "photos": 2,
        "mean": [0.5],
    }
