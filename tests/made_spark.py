"""A local Spark, as a user's session: with a time zone of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ZONE = "America/New_York"  # its clocks go forward on 8 March 2026, inside the label windows of the tests

LEFT_SOCKETS = [  # PySpark leaves sockets to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@contextmanager
def local_spark(warehouse: Path) -> Iterator[Any]:
    """A session in this process, stopped at the end."""
    from pyspark.sql import SparkSession

    settings = {
        "spark.master": "local[2]",
        "spark.ui.enabled": "false",
        "spark.driver.memory": "1500m",
        "spark.sql.session.timeZone": ZONE,
        "spark.sql.shuffle.partitions": "3",
        "spark.sql.warehouse.dir": str(warehouse),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        started = SparkSession.builder.config(map=settings).getOrCreate()
        try:
            yield started
        finally:
            started.stop()
