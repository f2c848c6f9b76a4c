"""What the tests of deploy/local share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from running import ClickHouseProcess


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseProcess]:
    server = ClickHouseProcess(tmp_path_factory.mktemp("clickhouse"))
    server.start()
    yield server
    assert server.end() == 0
