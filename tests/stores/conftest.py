"""A store that fails when it is told to."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import faulty_store
import pytest
from faulty_store import FaultyStore


@pytest.fixture(scope="session")
def proxy(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyStore]:
    rule = tmp_path_factory.mktemp("proxy") / "rule"
    rule.write_text("")
    # A process of its own: delta-rs holds Python's lock while it waits for an answer.
    command: list[Any] = [sys.executable, faulty_store.__file__, s3["AWS_ENDPOINT_URL"].removeprefix("http://"), rule]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield FaultyStore(process.stdout.readline(), rule)
        finally:
            process.kill()


@pytest.fixture
def store(proxy: FaultyStore) -> Iterator[FaultyStore]:
    yield proxy
    proxy.works()
