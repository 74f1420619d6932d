"""Where a lake or a source may lie: paths and URIs that would be taken for something else are refused by name."""

import re

WEB = ("http", "https")
SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "hdfs", "viewfs", "file", *WEB)


def check_place(place: str) -> str:
    """``place`` itself.

    Raises:
        ValueError: it is empty, a web address, or a URI that is not spelled as URIs are.
    """
    if not place.strip():
        raise ValueError("must not be empty")
    uri = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(/*)", place)
    scheme = uri[1].lower() if uri else ""
    if uri is None or scheme not in SCHEMES:
        return place
    if scheme in WEB:
        raise ValueError(
            "web addresses are not read: name a folder, a file or an object store, such as s3://bucket/name"
        )
    if uri[1] != scheme:
        raise ValueError(f"write {scheme}: in small letters")
    if len(uri[2]) < 2:
        raise ValueError(f"two slashes follow the scheme: {scheme}://…")
    return place
