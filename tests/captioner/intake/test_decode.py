"""What becomes of uploaded bytes: honest photos are read as they were meant, others refused with a reason."""

import hashlib
import io
import struct
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from captioner.exceptions import InvalidImage
from captioner.intake import memory
from captioner.intake.decode import DecodedPhoto, photo_decode
from captioner.intake.limits import MAX_PIXELS, MAX_SCANS, MAX_STORED_SIDE
from tests import corpus

Colour = tuple[int, int, int]


def corners(image: Image.Image) -> list[Colour]:
    """The colours well inside the four quadrants: top left, top right, bottom left, bottom right."""
    xs, ys = ([side // 8, side * 7 // 8] for side in image.size)
    return [image.getpixel((x, y)) for y in ys for x in xs]


def difference(ones: list[Colour], others: list[Colour]) -> int:
    return max(
        abs(a - b) for one, other in zip(ones, others, strict=True) for a, b in zip(one, other, strict=True)
    )


def decoded(image: Image.Image, file_format: str = "PNG", **options) -> Image.Image:
    return photo_decode(corpus.saved(image, file_format, **options)).image


@pytest.mark.parametrize("name", corpus.BROKEN)
def test_a_broken_photo_is_refused_for_its_reason(name: str) -> None:
    with pytest.raises(InvalidImage) as refusal:
        photo_decode(corpus.BROKEN[name]())

    assert refusal.value.reason == corpus.REASONS[name]
    assert str(refusal.value).endswith(".")


@pytest.mark.parametrize("name", corpus.ODD)
def test_an_odd_photo_is_read_upright_from_its_first_frame(name: str) -> None:
    photo = photo_decode(corpus.ODD[name]())

    expected = [corpus.RED, corpus.GREEN, corpus.BLUE, corpus.YELLOW]
    if name in corpus.GREY:
        expected = corners(corpus.quadrants().convert("L").convert("RGB"))
    assert difference(corners(photo.image), expected) <= 4
    assert photo.width / photo.height == pytest.approx(photo.image.width / photo.image.height, rel=0.1)


@pytest.mark.parametrize("name", corpus.ODD)
def test_a_photo_that_is_read_is_a_small_rgb_image_without_metadata(name: str) -> None:
    photo = photo_decode(corpus.ODD[name]())

    assert type(photo.image) is Image.Image
    assert photo.image.mode == "RGB"
    assert photo.image.info == {}
    assert max(photo.image.size) == min(MAX_STORED_SIDE, max(photo.width, photo.height))


def test_sizes_are_those_of_the_original_held_upright_and_the_hash_is_of_the_upload() -> None:
    landscape = corpus.quadrants((4000, 3000))
    data = corpus.saved(landscape, "JPEG", exif=corpus.exif(6))

    photo = photo_decode(data)

    assert (photo.width, photo.height) == (3000, 4000)
    assert photo.image.size == (960, 1280)
    assert photo.sha256 == hashlib.sha256(data).hexdigest()


def test_a_jpeg_of_exactly_33_megapixels_is_read() -> None:
    photo = photo_decode(corpus.LARGE["jpeg"]())

    assert photo.width * photo.height == MAX_PIXELS
    assert photo.image.size == (1280, 1173)


@pytest.mark.parametrize("size", [(1, 1), (1, 16_384), (16_384, 1), (1281, 1), (640, 480)])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_extreme_shapes_keep_at_least_one_pixel_a_side(file_format: str, size: tuple[int, int]) -> None:
    image = decoded(Image.new("RGB", size, "teal"), file_format)

    assert image.size == tuple(max(1, round(side * min(1, 1280 / max(size)))) for side in size)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_every_orientation_ends_upright(file_format: str, orientation: int) -> None:
    photo = photo_decode(corpus.turned(orientation, file_format))

    assert (photo.width, photo.height) == (120, 80)
    assert difference(corners(photo.image), corners(corpus.quadrants())) <= 4


def test_no_metadata_reaches_what_is_stored() -> None:
    data = corpus.ODD["jpeg with metadata"]()
    assert all(secret in data for secret in (b"Exif", b"ICC_PROFILE", b"Ada Secret", b"adobe"))

    stored = photo_decode(data).jpeg

    assert not any(secret in stored for secret in (b"Exif", b"ICC_PROFILE", b"Ada Secret", b"adobe"))
    with Image.open(io.BytesIO(stored)) as reopened:
        assert set(reopened.info) == {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_what_is_hidden_behind_a_photo_is_not_stored() -> None:
    stored = photo_decode(corpus.ODD["jpeg that is a zip as well"]()).jpeg

    assert b"PK\x03\x04" not in stored


def test_a_stored_photo_is_the_same_jpeg_every_time() -> None:
    data = corpus.ODD["jpeg turned right"]()

    first, second = (photo_decode(data).jpeg for _ in range(2))

    assert first == second
    assert photo_decode(first).image.size == (120, 80)


def test_even_an_image_with_metadata_is_stored_without() -> None:
    with Image.open(io.BytesIO(corpus.ODD["jpeg with metadata"]())) as image:
        stored = DecodedPhoto(image, "", *image.size).jpeg

    assert b"Secret" not in stored
    assert b"Exif" not in stored


def test_colours_of_a_wide_gamut_are_converted_to_srgb() -> None:
    # (200, 60, 60) of Display P3 is (217, 42, 52) of sRGB: linear light times both spaces' matrices.
    image = decoded(Image.new("RGB", (32, 32), (200, 60, 60)), "PNG", icc_profile=corpus.display_p3())

    assert difference([image.getpixel((9, 9))], [(217, 42, 52)]) <= 2


def test_a_grey_profile_on_a_colour_photo_is_ignored() -> None:
    profile = bytearray(corpus.icc_profile())
    profile[16:20] = b"GRAY"

    image = decoded(Image.new("RGB", (32, 32), (200, 60, 60)), "PNG", icc_profile=bytes(profile))

    assert image.getpixel((9, 9)) == (200, 60, 60)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    gradient = Image.new("I;16", (256, 64))
    for level in range(256):
        gradient.paste(level * 257, (level, 0, level + 1, 64))

    image = decoded(gradient)

    assert [image.getpixel((level, 32))[0] for level in (0, 64, 128, 192, 255)] == [0, 64, 128, 192, 255]


def test_black_and_white_are_smoothed_when_they_shrink() -> None:
    checkers = Image.effect_noise((2560, 16), 500).convert("1", dither=Image.Dither.NONE)

    greys = {image_pixel[0] for image_pixel in decoded(checkers).get_flattened_data()}

    assert len(greys) > 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_become_white(mode: str) -> None:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 32, 64))

    flat = decoded(image.quantize(4) if mode == "P" else image.convert(mode))

    assert flat.getpixel((8, 32)) == (0, 0, 0)
    assert flat.getpixel((56, 32)) == (255, 255, 255)


def test_a_hole_in_a_palette_becomes_white() -> None:
    assert photo_decode(corpus.palette_png()).image.getpixel((60, 40)) == (255, 255, 255)


def test_transparent_black_does_not_bleed_into_its_neighbours() -> None:
    image = Image.new("RGBA", (2560, 64), (0, 0, 0, 0))
    for x in range(0, 2560, 2):
        image.paste((255, 255, 255, 255), (x, 0, x + 1, 64))

    assert decoded(image).getextrema() == ((255, 255),) * 3


def test_cmyk_is_read_with_its_inks_the_right_way_round() -> None:
    cyan, black = (
        decoded(Image.new("CMYK", (32, 32), ink), "JPEG") for ink in [(255, 0, 0, 0), (0, 0, 0, 255)]
    )

    assert difference([cyan.getpixel((9, 9))], [(0, 255, 255)]) <= 4
    assert difference([black.getpixel((9, 9))], [(0, 0, 0)]) <= 4


def test_a_progressive_jpeg_may_have_as_many_scans_as_encoders_write() -> None:
    progressive = corpus.jpeg(progressive=True)

    assert progressive.count(b"\xff\xda") < MAX_SCANS
    assert photo_decode(progressive).image.size == (120, 80)


def test_a_heif_of_deep_colour_must_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "DECODE_MEMORY", 100_000)

    with pytest.raises(InvalidImage, match="Send a smaller copy") as refusal:
        photo_decode(corpus.heif())

    assert refusal.value.reason == "too_many_pixels"


def test_decoding_leaves_the_limits_of_other_users_of_pillow_alone() -> None:
    program = (
        "from PIL import Image, ImageFile; before = Image.MAX_IMAGE_PIXELS, set(Image.OPEN);"
        "import captioner.intake.decode;"
        "assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == (before[0], False);"
        "assert 'HEIF' not in Image.OPEN;"
        "import pillow_heif; assert pillow_heif.options.THUMBNAILS"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- fuzzing

SEEDS = [
    corpus.ODD[name]()
    for name in corpus.ODD
    if "bomb" not in name and "200 frames" not in name and "stalling" not in name and "very wide" not in name
]
PLACES = st.floats(0, 1, exclude_max=True)


def mutate(data: bytes, mutations: list[tuple[str, float, bytes]]) -> bytes:
    for kind, place, new in mutations:
        at = int(place * len(data))
        if kind == "overwrite":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + len(new) :]
        elif kind == "repeat":
            data = data[: at + 20] + data[at:]
        else:
            data = data[:at]
    return data


@settings(max_examples=400, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    mutations=st.lists(
        st.tuples(
            st.sampled_from(["overwrite", "insert", "delete", "repeat", "cut"]),
            PLACES,
            st.binary(min_size=1, max_size=8),
        ),
        min_size=1,
        max_size=6,
    ),
)
@example(seed=corpus.jpeg(), mutations=[("overwrite", 0.0, b"\xff\xd8\xff\xda\0\0")])
@example(seed=corpus.turned(6), mutations=[("overwrite", 0.02, struct.pack("<I", 2**32 - 1))])
def test_damaged_files_are_read_or_refused_and_nothing_else(seed: bytes, mutations: list) -> None:
    try:
        photo = photo_decode(mutate(seed, mutations))
    except InvalidImage:
        return
    assert photo.image.mode == "RGB"
    assert max(photo.image.size) <= MAX_STORED_SIDE


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidImage):
        photo_decode(data)


# --- Photos that are whole in files that are not ---

PHOTOGRAPH = Image.effect_noise((203, 155), 40).convert("RGB")
RESTARTS = {"restart_marker_rows": 1}


@pytest.mark.parametrize("kept", [-1, -2])
@pytest.mark.parametrize("padding", [b"", bytes(500)], ids=["", "zeros"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 100}, RESTARTS], ids=str
)
def test_a_jpeg_without_its_end_shows_all_that_it_has(options: dict, padding: bytes, kept: int) -> None:
    whole = corpus.saved(PHOTOGRAPH, "JPEG", **options)
    assert photo_decode(whole[:kept] + padding).jpeg == photo_decode(whole).jpeg


@pytest.mark.parametrize("options", [{}, {"progressive": True}, RESTARTS], ids=str)
@pytest.mark.parametrize("missing", [50, 500])
@pytest.mark.parametrize("padding", [0, 2000])
def test_a_jpeg_of_which_rows_are_missing_is_refused(options: dict, missing: int, padding: int) -> None:
    data = corpus.saved(PHOTOGRAPH, "JPEG", **options)[:-missing] + bytes(padding)
    with pytest.raises(InvalidImage) as refusal:
        photo_decode(data)
    assert refusal.value.reason == "truncated"


def test_a_jpeg_cut_between_two_restarts_is_refused() -> None:
    data = corpus.saved(PHOTOGRAPH, "JPEG", **RESTARTS)
    for row in range(6):
        with pytest.raises(InvalidImage):
            photo_decode(data[: data.index(bytes([0xFF, 0xD0 + row]))])


@pytest.mark.parametrize("options", [{"quality": 80}, {"lossless": True}], ids=str)
def test_a_webp_whose_metadata_are_cut_shows_its_picture(options: dict) -> None:
    whole = corpus.saved(
        PHOTOGRAPH, "WEBP", exif=Image.Exif().tobytes() + bytes(100), xmp=b"x" * 500, **options
    )
    assert photo_decode(whole[:-300]).jpeg == photo_decode(whole).jpeg
    with pytest.raises(InvalidImage):
        photo_decode(whole[:-1500])
