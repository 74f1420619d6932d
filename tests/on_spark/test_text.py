import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.on_spark.texts import Template, TextFault, clean, fold


@pytest.mark.parametrize(
    ("template", "values", "expected"),
    [
        ("{title}. {genres}. {text}", {"title": "A", "genres": "B", "text": "C"}, "A. B. C"),
        ("{title}. {genres}. {text}", {"title": "A", "genres": None, "text": "C"}, "A. C"),
        ("{title}. {genres}. {text}", {"title": None, "genres": "B", "text": None}, "B"),
        ("{title}. {genres}. {text}", {"title": None, "genres": None, "text": ""}, ""),
        ("Title: {title}. By {brand}", {"title": "A", "brand": None}, "Title: A"),
        ("Title: {title}. By {brand}", {"title": None, "brand": "B"}, "By B"),
        ("{title} ({brand})", {"title": "A", "brand": "B"}, "A (B)"),
    ],
)
def test_a_missing_value_leaves_nothing_behind(template: str, values: dict[str, str | None], expected: str) -> None:
    assert Template(template).fill(values) == expected


def test_templates_name_columns_and_nothing_more() -> None:
    assert Template("{a}. {b} {a}").columns == ["a", "b"]
    for wrong in ("{a", "{}", "{a:>10}", "{a!r}"):
        with pytest.raises(ValueError, match=r"brace|field|\{|'}'"):
            Template(wrong)
    with pytest.raises(ValueError, match="a brace of the text itself is written twice"):
        Template("{a} {")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  two \n\t words ", "two words"),
        ("cafe\u0301", "caf\u00e9"),
        ("<p>Soft&nbsp;&amp; warm</p><br/>cotton", "Soft & warm cotton"),
        ("<style>p {color: red}</style><b>Bag</b><script>alert(1)</script>", "Bag"),
        ("3 < 4 and 5 > 2", "3 < 4 and 5 > 2"),
        ("a\0b\u202ec\u200bd", "abcd"),
        ("\U0001f469\u200d\U0001f33e", "\U0001f469\u200d\U0001f33e"),
        ("<br>", None),
        ("<!-- <b>old</b> > --><i title='a > b'>new</i>", "new"),
        ("<SCRIPT>if (a<b) x()</SCRIPT >Bag<style>p{", "Bag"),
        ("<p>size <medium", "size <medium"),
        ('<a title="5>Bag</a> of 5" screens', 'Bag of 5" screens'),
        ("<a>1<b>2" * 3, "1 2 1 2 1 2"),
        ("&#xD800;&#0;" + "x" * 60, "\ufffd\ufffd" + "x" * 60),
        ("a" + "\u0301\u0323" * 1000 + "b", "\u1ea1" + "\u0323" * 14 + "\u0301" * 15 + "b"),
        ("", None),
        (None, None),
    ],
)
def test_canonical_text(raw: str | None, expected: str | None) -> None:
    assert clean(raw, 1000) == expected


def test_what_was_markup_in_a_field_is_not_stripped_again() -> None:
    assert clean("a lamp &#" + "9" * 5000 + "; shade", 10_000) == "a lamp shade"  # int() refuses so many digits
    assert fold(clean("&lt;canvas&gt; by example", 100) or "", 100) == "<canvas> by example"


@pytest.mark.parametrize("part", ["<", "<a ", "<a x=", "<a b='", "<a '>' ", "<!--", "<![CDATA[", "</", "<?", "&", "&#"])
def test_markup_that_never_ends_is_read_once(part: str) -> None:
    """Time linear in the text: a quadratic one takes half an hour for each of these."""
    text = clean(part * (400_000 // len(part)) + '"', 100_000)
    assert text is None or len(text) > 10_000


def test_long_texts_are_cut_and_undecodable_ones_refused() -> None:
    assert clean("word " * 10_000_000, 20) == "word word word word"
    with pytest.raises(TextFault, match="could not be decoded"):
        clean("\ufffd\ufffd bag", 100)
    assert clean("a long text with one bad \ufffd character in it", 100) is not None


@given(st.text(max_size=200))
def test_cleaning_again_changes_nothing_of_plain_text(raw: str) -> None:
    try:
        once = clean(raw.replace("<", "").replace("&", ""), 100)
    except TextFault:
        return
    if once is not None:
        assert clean(once, 100) == once
        assert once == once.strip()
