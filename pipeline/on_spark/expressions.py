"""Column expressions that several tables share, equal to their Python twins where there are any."""

from pyspark.sql import Column
from pyspark.sql import functions as F

from schemas.semantic_id import PARTS, Layout

VECTOR_SHA = "v"  # begins the hash of a vector that came with the catalogue; that of a text or a picture is hexadecimal


def item_hash(item_id: Column) -> Column:
    """:func:`schemas.semantic_id.item_hash` as a bigint: 63 bits of the SHA-256 of an item's id."""
    digits = F.sha2(item_id.cast("binary"), 256)
    sixty_bits = F.conv(F.substring(digits, 1, 15), 16, 10).cast("bigint")
    last_four = F.conv(F.substring(digits, 16, 1), 16, 10).cast("int")
    return F.shiftleft(sixty_bits, 3).bitwiseOR(F.shiftright(last_four, 1).cast("bigint"))


def filled_codes(layout: Layout, absent: int) -> Column:
    """All codes of a row of ``semantic_ids`` or ``released_ids`` by slot, array<smallint>, ``absent`` where one is."""
    fill = F.lit(absent).cast("smallint")
    parts = [(part, n) for part, n in zip(PARTS, layout.levels, strict=True) if n]
    return F.concat(*(F.coalesce(F.col(part), F.array_repeat(fill, n)) for part, n in parts))


def content(text_sha: Column, image_sha: Column) -> Column:
    """The name of a text and a picture together, either of which may be null: 32 hexadecimal digits."""
    both = F.concat_ws("|", F.coalesce(text_sha, F.lit("")), F.coalesce(image_sha, F.lit("")))
    return F.substring(F.sha2(both, 256), 1, 32)
