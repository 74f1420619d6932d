"""What native Delta and S3 need in tests: the JARs, where there are any, and the keys of the tests' store."""

import os
from pathlib import Path

import pytest

JARS_VARIABLES = {"native_delta": "HISAM_DELTA_JARS", "spark_on_s3": "HISAM_S3_JARS"}  # by the marker that needs them
S3_KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "needle-0b5e7c4f"}  # found nowhere but here
S3_DOMAIN = "store.test"  # under which that store's buckets are hosts


def jars_for(marker: str) -> list[str]:
    """The JARs in the folder that the environment names."""
    variable = JARS_VARIABLES[marker]
    folder = os.environ.get(variable)
    if folder is None:
        return []
    jars = sorted(map(str, Path(folder).glob("*.jar")))
    if not jars:
        raise pytest.UsageError(f"{variable}={folder} holds no JAR")
    return jars
