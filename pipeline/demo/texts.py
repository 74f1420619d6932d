"""Titles and descriptions of the demo's catalogue.

What a thing is (the shared factor) and its *make* (the text-only factor: one of eight materials in one of three lines)
are told in synonyms; colour, pattern and background never are.
"""

from typing import NamedTuple

import numpy as np

# In the order of pictures.DRAWINGS: category, what the category is for, two names of each style.
_PRODUCTS: tuple[tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]], ...] = (
    (
        "Shoes",
        ("a comfortable step all day", "cushioned sole and snug footbed", "made for walking"),
        (("sneaker", "trainer"), ("ankle boot", "hiking boot"), ("high heel", "stiletto"), ("sandal", "open slide")),
    ),
    (
        "Bags",
        ("carries everything you need", "roomy pockets and sturdy straps", "packs for the day"),
        (("tote", "shopper"), ("backpack", "rucksack"), ("handbag", "purse"), ("duffel", "weekender")),
    ),
    (
        "Watches",
        ("keeps precise time on the wrist", "easy to read dial", "reliable movement"),
        (
            ("round dress watch", "classic wristwatch"),
            ("rectangular watch", "tank watch"),
            ("smartwatch", "fitness tracker"),
            ("pocket watch", "fob watch"),
        ),
    ),
    (
        "Tops",
        ("soft to wear and cut to fit", "machine washable", "layers well in any season"),
        (
            ("t-shirt", "tee"),
            ("long-sleeve", "raglan shirt"),
            ("tank top", "sleeveless vest"),
            ("hoodie", "hooded pullover"),
        ),
    ),
    (
        "Hats",
        ("sits well on the head", "shades the face and keeps its form", "one size with an inner band"),
        (("beanie", "knit cap"), ("baseball cap", "snapback"), ("fedora", "trilby"), ("bucket hat", "fisherman hat")),
    ),
    (
        "Eyewear",
        ("clear lenses in a light frame", "full UV protection", "adjustable nose pads"),
        (
            ("round glasses", "circle spectacles"),
            ("aviators", "pilot sunglasses"),
            ("cat-eye glasses", "butterfly frames"),
            ("square glasses", "rectangle spectacles"),
        ),
    ),
    (
        "Headphones",
        ("rich sound for music and calls", "long battery life", "wireless with low latency"),
        (
            ("over-ear headphones", "studio headphones"),
            ("headset with microphone", "gaming headset"),
            ("earbuds", "in-ear buds"),
            ("neckband earphones", "sports neckband"),
        ),
    ),
    (
        "Umbrellas",
        ("keeps off rain and sun", "wind-proof ribs", "opens at the press of a button"),
        (
            ("umbrella", "stick umbrella"),
            ("parasol", "garden sunshade"),
            ("dome umbrella", "bubble umbrella"),
            ("folding umbrella", "compact brolly"),
        ),
    ),
    (
        "Lighting",
        ("warm light for any room", "fits a standard bulb", "dimmable with a long cable"),
        (
            ("table lamp", "bedside lamp"),
            ("floor lamp", "standing lamp"),
            ("pendant light", "hanging lamp"),
            ("desk lamp", "reading light"),
        ),
    ),
    (
        "Cups",
        ("for coffee, tea and long mornings", "holds heat well", "dishwasher safe"),
        (("mug", "coffee mug"), ("teacup", "cup and saucer"), ("tumbler", "travel mug"), ("tankard", "beer stein")),
    ),
    (
        "Seating",
        ("a good place to sit", "supports the back for hours", "holds up to 120 kg"),
        (
            ("dining chair", "side chair"),
            ("armchair", "lounge chair"),
            ("bar stool", "counter stool"),
            ("office chair", "swivel chair"),
        ),
    ),
    (
        "Vases",
        ("for flowers fresh or dried", "watertight and stable", "a quiet centrepiece"),
        (
            ("bud vase", "bottle vase"),
            ("amphora", "two-handled urn"),
            ("cylinder vase", "flower holder"),
            ("bowl", "fruit dish"),
        ),
    ),
    (
        "Clocks",
        ("silent sweep movement", "large numerals at a glance", "runs a year on one battery"),
        (
            ("wall clock", "kitchen clock"),
            ("alarm clock", "twin-bell alarm"),
            ("mantel clock", "shelf clock"),
            ("pendulum clock", "grandfather clock"),
        ),
    ),
    (
        "Pots",
        ("brews and pours without a drip", "for the stove and the breakfast table", "easy to clean spout"),
        (("teapot", "tea brewer"), ("kettle", "water boiler"), ("moka pot", "espresso maker"), ("pitcher", "jug")),
    ),
    (
        "Instruments",
        ("full tone from the first chord", "set up and ready to play", "smooth neck and fine tuning"),
        (
            ("acoustic guitar", "folk guitar"),
            ("flying v guitar", "arrow guitar"),
            ("electric guitar", "solid-body guitar"),
            ("banjo", "five-string banjo"),
        ),
    ),
    (
        "Tables",
        ("a steady surface for every day", "seats the family", "assembles in minutes"),
        (
            ("pedestal table", "bistro table"),
            ("dining table", "kitchen table"),
            ("writing desk", "desk with drawers"),
            ("trestle table", "folding table"),
        ),
    ),
)

_MATERIALS = (
    ("oak", "solid hardwood"),
    ("bamboo", "cane fibre"),
    ("steel", "brushed alloy"),
    ("ceramic", "glazed stoneware"),
    ("leather", "full-grain hide"),
    ("linen", "flax weave"),
    ("recycled plastic", "reclaimed polymer"),
    ("merino wool", "boiled felt"),
)
_LINES = (
    ("handmade in small batches", "artisan workshop edition", "crafted by hand in a family workshop"),
    ("engineered for the outdoors", "expedition tested", "rugged field edition"),
    ("limited designer series", "award-winning studio design", "numbered gallery edition"),
)
_BRANDS = (  # two houses a make, by material and line
    *("Arbo", "Quercia", "Timberline", "Fellwood", "Maison Chêne", "Atelier Nodo"),
    *("Panda & Reed", "Sasagawa", "Canebrake", "Junglecraft", "Take Studio", "Moso Lab"),
    *("Hammer & Rivet", "Forgeworks", "Ironpeak", "Boltgear", "Ferrum", "Kaltstahl"),
    *("Clay Corner", "Terracina", "Kilnrock", "Hardfire", "Porcelaine Sud", "Biskvit"),
    *("Saddler's", "Cuoio Vero", "Buckhorn", "Trailhide", "Maroquin", "Pelle Nera"),
    *("Flaxfield", "Lin & Fil", "Canvasback", "Sailcloth Co", "Toile Neuve", "Leinenhaus"),
    *("Second Wave", "Reloop", "Oceanguard", "Polyrange", "Neo Resin", "Plastique Fou"),
    *("Woolly Hill", "Spindle & Ewe", "Highland Range", "Ramshead", "Laine Pure", "Feltro"),
)
MAKES = len(_MATERIALS) * len(_LINES)

_OPENINGS = ("", "New: ", "Our favourite: ", "Back in stock: ", "Bestseller: ")
_CLOSINGS = (
    "Ships within two days.",
    "Free returns within 30 days.",
    "Comes with a two-year guarantee.",
    "Makes a fine gift.",
    "Packed without plastic.",
    "",
)


class Text(NamedTuple):
    """The textual columns of one item."""

    title: str
    brand: str
    category: str
    description: str


def write(shared: int, make: int, rng: np.random.Generator) -> Text:
    """One item's text, from its shared factor (``category * 4 + style``) and its make.

    ``rng`` picks among synonyms, phrases and orders.
    """
    category, purposes, styles = _PRODUCTS[shared // 4]
    material, line = divmod(make, len(_LINES))

    def one(options: tuple[str, ...]) -> str:
        return options[rng.integers(len(options))]

    brand = _BRANDS[2 * make + int(rng.integers(2))]
    noun, other = rng.permutation(styles[shared % 4])
    substance = one(_MATERIALS[material])
    title = one(
        (f"{brand} {noun}", f"{brand} {substance} {noun}", f"{noun} by {brand}", f"{noun}, {substance}, {brand}")
    )
    purpose, further = rng.permutation(purposes)[:2]
    sentences = [
        f"{one(('A', 'This', 'The'))} {other} in {one(_MATERIALS[material])}, {one(_LINES[line])}",
        purpose.capitalize(),
        one((f"Material: {substance}", f"From the house of {brand}", further.capitalize())),
    ]
    order = rng.permutation(len(sentences))
    description = f"{one(_OPENINGS)}{'. '.join(sentences[i] for i in order)}. {one(_CLOSINGS)}".strip()
    return Text(title[0].upper() + title[1:], brand, category, description)
