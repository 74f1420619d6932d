import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.semantic_id import Codes, Layout

LAYOUT = Layout(3, 2, 2, 64)


@st.composite
def layouts_and_codes(draw: st.DrawFn) -> tuple[Layout, Codes]:
    levels = draw(st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(0, 3)))
    layout = Layout(*levels, draw(st.integers(2, 2**15 - 1)))
    code = st.integers(0, layout.codebook_size - 1)

    def part(n: int, absent: bool) -> tuple[int, ...] | None:
        return None if absent else tuple(draw(st.lists(code, min_size=n, max_size=n)))

    text = part(levels[1], draw(st.booleans()) and levels[1] > 0)
    image = part(levels[2], draw(st.booleans()) and levels[2] > 0)
    return layout, Codes(part(levels[0], False) or (), text, image)


@given(layouts_and_codes())
def test_every_form_of_an_id_reads_back_as_the_same_codes(case: tuple[Layout, Codes]) -> None:
    layout, codes = case
    assert layout.parse(layout.format(codes)) == codes
    row = layout.flatten(codes)
    assert len(row) == layout.slots
    assert layout.split(row) == codes


def test_the_readable_form() -> None:
    assert LAYOUT.format(Codes((12, 7, 40), (3, 9), (20, 1))) == "s12-7-40.t3-9.i20-1"
    assert LAYOUT.format(Codes((12, 7, 40), (3, 9), None)) == "s12-7-40.t3-9"
    assert LAYOUT.flatten(Codes((1, 2, 3), None, (4, 5))) == [1, 2, 3, 64, 64, 4, 5]
    assert LAYOUT.slot_names() == ["shared_0", "shared_1", "shared_2", "text_0", "text_1", "image_0", "image_1"]


@pytest.mark.parametrize(
    ("sid", "fault"),
    [
        ("12-7-40", "is not a semantic ID"),
        ("s1-2", "shared part has 2 codes"),
        ("s1-2-64", "code 64, outside 0 to 63"),
        ("s1-2-3.t1", "text part has 1 codes"),
        ("s1-2-3.t1-2.i1-2.x", "is not a semantic ID"),
        ("s1-2-3\n", "is not a semantic ID"),
        ("s١-2-3", "is not a semantic ID"),
    ],
)
def test_what_is_no_id_of_the_layout_is_refused(sid: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        LAYOUT.parse(sid)


@pytest.mark.parametrize("wrong", [(0, 1, 1, 8), (1, -1, 1, 8), (1, 1, 1, 1), (1, 1, 1, 2**15)])
def test_impossible_layouts_are_refused(wrong: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"layout|codebook_size"):
        Layout(*wrong)
