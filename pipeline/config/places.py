"""Where a lake or a source may lie, and what may be said of its store: what would be misunderstood is refused.

A configuration says where a store is, never who asks: keys, a profile or a role are of each process's own environment,
so that no secret is in a file, a task, a log or a record.
"""

import difflib
import json
import os
import re
from collections.abc import Mapping

WEB = ("http", "https")
UNPROVEN = ("gs", "az", "abfs", "abfss")  # stores that Spark may read a source from, and no lake was ever tried in
SCHEMES = ("s3", "s3a", *UNPROVEN, "hdfs", "viewfs", "file", *WEB)
ENDPOINT, REGION, VIRTUAL = "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST"
OPTIONS = (ENDPOINT, REGION, VIRTUAL)  # what they mean to each engine: pipeline.lake.object_store
SECRETS = ("SECRET", "TOKEN", "PASSWORD", "ACCESS_KEY", "ACCESS.KEY", "ACCOUNT_KEY", "ACCOUNT.KEY")
SHORTEST_SECRET = 8
IDENTITY = (*SECRETS, "PROFILE", "ROLE")


def without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """``text``, which may be JSON, with a mark in place of the secrets that the environment holds."""
    held = {value for name, value in environment.items() if any(word in _secret_words(name) for word in SECRETS)}
    held |= {json.dumps(value, ensure_ascii=False)[1:-1] for value in held}
    for value in sorted((value for value in held if len(value) >= SHORTEST_SECRET), key=len, reverse=True):
        text = text.replace(value, "(secret)")
    return text


def _secret_words(name: str) -> str:
    return name.upper().replace("TOKENIZER", "")  # whose fingerprint, or settings, are none


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


def check_lake(place: str) -> str:
    """``place`` itself, where a lake may lie there.

    Raises:
        ValueError: as :func:`check_place`, or it is in a kind of store that no lake was ever tried in.
    """
    scheme = check_place(place).partition("://")[0]
    if scheme in UNPROVEN:
        raise ValueError(
            f"no lake has been tried in {scheme}://, and a store must be proven not to lose commits: use s3://"
        )
    return place


def check_options(options: Mapping[str, str]) -> dict[str, str]:
    """``options`` themselves.

    Raises:
        ValueError: one says who asks, is unknown, or has a value that it cannot have.
    """
    for key, value in options.items():
        if any(word in key.upper() for word in IDENTITY):
            raise ValueError(
                f"{key} says who asks, and may be a secret: take it out of the file and set it in the environment of "
                "each node, or give the node a role"
            )
        if key not in OPTIONS:
            near = difflib.get_close_matches(key.upper(), OPTIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(OPTIONS)}"
            raise ValueError(f"{key} is an unknown key; {hint}")
        if key == ENDPOINT and not re.fullmatch(r"https?://[^/@]+/?", value):
            raise ValueError(f"{key} is http:// or https:// and a host, with a port where it needs one")
        if key == VIRTUAL and value not in ("true", "false"):
            raise ValueError(f'{key} is "true" (the bucket is part of the host\'s name) or "false" (of the path)')
    return dict(options)
