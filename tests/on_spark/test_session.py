"""What the terminal is spared."""

import logging

import pytest
from py4j import java_gateway

from pipeline.on_spark.session import quiet_py4j


def test_what_py4j_logs_when_java_dies_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    quiet_py4j()
    for file in (java_gateway.__file__, __file__):
        record = logging.LogRecord("root", logging.INFO, file, 1, "sent from %s", (file,), None)
        logging.getLogger().handle(record)
    java_gateway.logger.error("a traceback")
    assert [record.getMessage() for record in caplog.records] == [f"sent from {__file__}"]
