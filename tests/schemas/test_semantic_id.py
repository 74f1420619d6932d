import pytest
from slow_ids import Codes, filled, parsed, spelled, split

from schemas.semantic_id import Layout

LAYOUT = Layout(3, 2, 2, 64)


def test_the_forms_of_an_id() -> None:
    whole, pictured = Codes((12, 7, 40), (3, 9), (20, 1)), Codes((1, 2, 3), None, (4, 5))
    assert spelled(whole) == "s12-7-40.t3-9.i20-1"
    assert spelled(pictured) == "s1-2-3.i4-5"
    assert filled(pictured, LAYOUT) == [1, 2, 3, LAYOUT.absent, LAYOUT.absent, 4, 5]
    for codes in (whole, pictured):
        assert parsed(spelled(codes), LAYOUT) == split(filled(codes, LAYOUT), LAYOUT) == codes
    assert LAYOUT.slot_names() == ["shared_0", "shared_1", "shared_2", "text_0", "text_1", "image_0", "image_1"]


@pytest.mark.parametrize("wrong", [(0, 1, 1, 8), (1, -1, 1, 8), (1, 1, 1, 1), (1, 1, 1, 2**15)])
def test_impossible_layouts_are_refused(wrong: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"layout|codebook_size"):
        Layout(*wrong)
