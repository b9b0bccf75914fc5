import subprocess
import sys

import pytest

from captioner.inference.types import MAX_NEW_TOKENS, MAX_NUM_BEAMS, MAX_NUM_CAPTIONS, DecodingParameters


def test_equal_parameters_are_one_batching_key() -> None:
    assert {
        DecodingParameters(2, 4, 20),
        DecodingParameters(num_beams=4, num_captions=2, max_new_tokens=20),
    } == {DecodingParameters(2, 4, 20)}


@pytest.mark.parametrize("value", [0, -1, 1000, 2.0, "3", None, True])
@pytest.mark.parametrize(
    ("field", "limit"),
    [("num_captions", MAX_NUM_CAPTIONS), ("num_beams", MAX_NUM_BEAMS), ("max_new_tokens", MAX_NEW_TOKENS)],
)
def test_a_value_out_of_range_is_refused_with_field_and_range(field: str, limit: int, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field} must be a whole number from 1 to {limit}, not {value!r}"):
        DecodingParameters(**{field: value})


def test_the_limits_themselves_are_allowed() -> None:
    assert DecodingParameters(MAX_NUM_CAPTIONS, MAX_NUM_BEAMS, MAX_NEW_TOKENS).num_beams == MAX_NUM_BEAMS


def test_fewer_beams_than_captions_are_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"num_beams must be at least num_captions, .* raise num_beams"):
        DecodingParameters(num_captions=3, num_beams=2)


@pytest.mark.parametrize("module", ["captioner.inference", "captioner.inference.types"])
def test_light_modules_import_neither_torch_nor_django(module: str) -> None:
    check = f"import sys, {module}; sys.exit(bool({{'torch', 'transformers', 'django'}} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", check], check=True)
