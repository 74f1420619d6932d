"""How an S3 store is reached: the one place from which every engine is set.

Where the store is comes from ``storage_options``, over the environment. Who asks comes from the environment of each
process alone, or the role of its machine: each engine finds that by itself, in the driver, in Ray's workers and in
Spark's executors, so that nothing that is sent to them has a secret.

| | delta-rs, obstore | Arrow | Hadoop's S3A |
|---|---|---|---|
| endpoint | ``AWS_ENDPOINT_URL``, ``AWS_ALLOW_HTTP`` | ``endpoint_override``, ``scheme`` | ``fs.s3a.endpoint`` |
| region | ``AWS_REGION`` | ``region`` | ``fs.s3a.endpoint.region`` |
| style | bucket before the endpoint's host | ``force_virtual_addressing`` | not ``fs.s3a.path.style.access`` |
| keys, role | found | found | found |
| profile | ``AWS_FORCE_CREDENTIAL_LOAD``, read here | found | ``ProfileAWSCredentialsProvider`` |

Options and variables are ``AWS_ENDPOINT_URL`` (default: Amazon's), ``AWS_REGION`` (of an endpoint us-east-1),
``AWS_VIRTUAL_HOSTED_STYLE_REQUEST`` (true without an endpoint); variables alone ``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN`` and ``AWS_PROFILE``. A store that does not answer is given up within a
minute, by Spark within two or three.
"""

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url
from pyarrow import fs

from pipeline.config.places import ENDPOINT, REGION, VIRTUAL
from pipeline.errors import ConfigError, first_line

SCHEMES = ("s3://", "s3a://")
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
CONTAINER = "AWS_CONTAINER_CREDENTIALS_"
ROLES = ("AWS_WEB_IDENTITY_TOKEN_FILE", f"{CONTAINER}FULL_URI", f"{CONTAINER}RELATIVE_URI")  # beside the instance's own
CONNECT_SECONDS = 5
SILENT_SECONDS = 15  # without a byte
LEASE_REQUEST_SECONDS = 10  # a request that hangs must not hide that the lease grows old
DELTA_PATIENCE = {
    "connect_timeout": f"{CONNECT_SECONDS}s",
    "timeout": "30s",
    "max_retries": "5",
    "retry_timeout": "40s",
}
HADOOP_PATIENCE = {
    "fs.s3a.connection.establish.timeout": f"{CONNECT_SECONDS}s",
    "fs.s3a.connection.timeout": "10s",
    "fs.s3a.attempts.maximum": "1",  # of Amazon's library, within each of the connector's own
    "fs.s3a.retry.limit": "2",
}
HADOOP_PROFILE = "org.apache.hadoop.fs.s3a.auth.ProfileAWSCredentialsProvider"


@dataclass(frozen=True)
class S3Store:
    """A bucket, and how it is reached; nothing that is secret."""

    bucket: str
    region: str
    endpoint: str | None
    virtual_hosted: bool

    @classmethod
    def of(cls, uri: str, options: Mapping[str, str]) -> Self | None:
        """The store that ``uri`` lies in; ``None`` where that is none of S3's.

        Raises:
            ConfigError: nothing says in which of Amazon's regions the bucket is.
        """
        if not uri.startswith(SCHEMES):
            return None
        known = {**os.environ, **options}
        bucket = uri.split("://", 1)[1].split("/", 1)[0]
        endpoint = known.get(ENDPOINT, "").rstrip("/") or None
        region = known.get(REGION) or known.get("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else None)
        if region is None:
            raise ConfigError(
                f"storage_options: {REGION} is missing: name the region of the bucket {bucket}, or {ENDPOINT} if it is "
                "not one of Amazon's"
            )
        return cls(bucket, region, endpoint, known.get(VIRTUAL, str(endpoint is None)).lower() == "true")

    def __str__(self) -> str:
        return self.endpoint or f"Amazon S3 in {self.region}"

    def arrow(self) -> fs.S3FileSystem:
        """Arrow's file system, whose paths begin with the bucket; it holds keys, so it is made where it is used."""
        return fs.S3FileSystem(
            region=self.region,
            endpoint_override=self.endpoint,
            scheme="http" if self._plain else "https",
            force_virtual_addressing=self.virtual_hosted and self.endpoint is not None,
            connect_timeout=CONNECT_SECONDS,
            request_timeout=SILENT_SECONDS,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
        )

    def delta_rs(self) -> dict[str, str]:
        """The storage options of a table."""
        profile = {"AWS_FORCE_CREDENTIAL_LOAD": "true"} if _profile() else {}
        return self._object_store() | {"AWS_ALLOW_HTTP": str(self._plain).lower()} | DELTA_PATIENCE | profile

    def obstore(self, uri: str) -> ObjectStore:
        """The folder ``uri``, for conditional puts.

        Raises:
            ConfigError: the store cannot be one, or the profile has no keys of its own.
        """
        patience, settings = timedelta(seconds=LEASE_REQUEST_SECONDS), self._object_store()
        if profile := _profile():
            settings |= _keys_of(profile)
        config: Any = settings
        try:
            return from_url(
                uri,
                config=config,
                client_options={"timeout": patience, "allow_http": self._plain},
                retry_config={"max_retries": 1, "retry_timeout": patience},
            )
        except BaseError as error:
            raise ConfigError(f"storage_options: {first_line(error)}") from error

    def hadoop(self) -> dict[str, str]:
        """The settings of Hadoop's connector."""
        found = {
            "fs.s3a.endpoint.region": self.region,
            "fs.s3a.path.style.access": str(not self.virtual_hosted).lower(),
        }
        if self.endpoint:
            found["fs.s3a.endpoint"] = self.endpoint
        if _profile():
            found["fs.s3a.aws.credentials.provider"] = HADOOP_PROFILE
        return found | HADOOP_PATIENCE

    @property
    def _plain(self) -> bool:
        return (self.endpoint or "").startswith("http://")

    def _object_store(self) -> dict[str, str]:
        """What delta-rs and obstore, which are of one make, have in common."""
        found = {REGION: self.region, VIRTUAL: str(self.virtual_hosted).lower()}
        if self.endpoint:
            scheme, host = urlsplit(self.endpoint)[:2]
            found[ENDPOINT] = f"{scheme}://{self.bucket}.{host}" if self.virtual_hosted else self.endpoint
        return found


def why_refused() -> str:
    """Who this process asks as, in words, for the message of a store that refuses it."""
    if os.environ.get(KEYS[0]):
        return f"the keys in this process's environment ({KEYS[0]}, {KEYS[1]}) are not allowed to"
    if profile := _profile():
        return f"the profile {profile} (AWS_PROFILE) is not allowed to"
    if any(map(os.environ.get, ROLES)):
        return "the role of this process is not allowed to"
    return f"this process has no keys ({KEYS[0]}, {KEYS[1]}) and no AWS_PROFILE, and no role that may"


def _profile() -> str | None:
    """The profile that is asked as: keys in the environment come before it."""
    return None if os.environ.get(KEYS[0]) else os.environ.get("AWS_PROFILE")


def _keys_of(profile: str) -> dict[str, str]:
    """The keys of a profile, from the files that Amazon's programs keep them in."""
    home = Path.home() / ".aws"
    files = [os.environ.get("AWS_CONFIG_FILE", home / "config")]
    files.append(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", home / "credentials"))
    found = configparser.RawConfigParser()
    found.read(files)
    sections = (name for name in (f"profile {profile}", profile) if found.has_section(name))
    said = {name.upper(): value for section in sections for name, value in found.items(section)}
    if not said.keys() >= set(KEYS[:2]):
        raise ConfigError(
            f"AWS_PROFILE: the profile {profile} has no keys of its own: set those of the environment instead, as "
            f"`aws configure export-credentials --profile {profile} --format env` prints them, or give the node a role"
        )
    return {key: said[key] for key in KEYS if key in said}
