"""``hisam report``: one page about a lake, for who must decide whether to release tonight's IDs.

``subject`` is what the page is about, each section's data has a file of its own, ``gather`` puts them together,
``page`` makes HTML of them. The driver holds samples and counts whose sizes do not depend on the catalogue.
"""
