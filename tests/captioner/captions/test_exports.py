import csv
import io
import json
from html.parser import HTMLParser

import pytest

from captioner.captions.exports import EXPORT_FORMATS, alt_hints, captions_export, img_tag
from captioner.captions.feedback import feedback_submit
from captioner.captions.sheets import BOM
from captioner.models import Caption

pytestmark = pytest.mark.django_db


def exported(wanted: str, **options: bool) -> str:
    return "".join(captions_export(Caption.objects.with_details(), wanted, **options))


def attributes(tag: str) -> dict[str, str | None]:
    found: list[dict[str, str | None]] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda _, attrs: found.append(dict(attrs))  # type: ignore[method-assign]
    parser.feed(tag)
    [only] = found
    return only


@pytest.fixture
def corrected(caption: Caption) -> Caption:
    Caption.objects.update(file_name="=wall & garden.jpg", confidence=0.4)
    feedback_submit(caption, ideal_caption='@home: a "garden" <wall>')
    return Caption.objects.with_details().get()


def test_csv_has_what_its_owner_wrote_with_the_models_beside_it_and_no_formulas(corrected: Caption) -> None:
    [row] = csv.DictReader(io.StringIO(exported("csv"), newline=""))
    assert (row["file_name"], row["caption"]) == ("'=wall & garden.jpg", '\'@home: a "garden" <wall>')
    assert (row["machine_caption"], row["source"], row["confidence"]) == ("a 64 by 48 photo", "person", "")
    assert row["caption_id"] == str(corrected.pk)


def test_a_mark_for_excel_is_there_by_choice_and_in_csv_alone(corrected: Caption) -> None:
    assert not exported("csv").startswith(BOM)
    assert exported("csv", bom=True) == BOM + exported("csv")
    assert exported("json", bom=True) == exported("json")


def test_json_and_coco_have_texts_as_they_are(corrected: Caption) -> None:
    [row] = json.loads(exported("json"))
    assert (row["file_name"], row["caption"]) == ("=wall & garden.jpg", '@home: a "garden" <wall>')
    coco = json.loads(exported("coco"))
    assert coco["images"] == [{"id": 1, "file_name": "=wall & garden.jpg", "width": 64, "height": 48}]
    assert coco["annotations"] == [{"id": 1, "image_id": 1, "caption": '@home: a "garden" <wall>'}]


def test_html_is_ready_to_be_pasted(corrected: Caption) -> None:
    [line] = exported("html").splitlines()
    assert attributes(line) == {"src": "%3Dwall%20%26%20garden.jpg", "alt": '@home: a "garden" <wall>'}


def test_a_decorative_photo_has_an_empty_alt_text(corrected: Caption) -> None:
    corrected.is_decorative = True
    assert attributes(img_tag(corrected))["alt"] == ""
    corrected.save()
    [row] = json.loads(exported("json"))
    assert (row["caption"], row["alt"], row["decorative"]) == ('@home: a "garden" <wall>', "", True)


@pytest.mark.parametrize("wanted", EXPORT_FORMATS)
def test_nothing_is_a_file_too(wanted: str) -> None:
    text = exported(wanted)
    if wanted in {"json", "coco"}:
        assert json.loads(text) in ([], {"images": [], "annotations": []})


@pytest.mark.parametrize(
    "text",
    [
        "a photo of a dog",
        "Photo of dogs",
        "An image showing hills",
        "picture of x",
        "a black photograph of y",
    ],
)
def test_saying_that_a_photo_is_one_is_told(text: str) -> None:
    assert ["photo of" in hint for hint in alt_hints(text)] == [True]


@pytest.mark.parametrize("text", ["", "a dog in a photo booth", "a photographer of birds", "x" * 125])
def test_a_good_alt_text_needs_no_hint(text: str) -> None:
    assert alt_hints(text) == []


def test_a_long_alt_text_is_told() -> None:
    assert ["126 characters" in hint for hint in alt_hints("x" * 126)] == [True]
