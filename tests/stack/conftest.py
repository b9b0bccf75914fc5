from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack import figures, servers


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if figures.SHOWN:
        terminalreporter.section("measured by the stack tests")
    for figure in figures.SHOWN:
        terminalreporter.write_line(figure)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Site]:
    """Captioner as `make run` starts it on a fresh machine: nothing configured, bundled starter weights."""
    with servers.captioner(tmp_path_factory.mktemp("embedded")) as site:
        yield site


@pytest.fixture(scope="session")
def production_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Site]:
    """Captioner on PostgreSQL, Redis and an S3 server."""
    folder: Path = tmp_path_factory.mktemp("servers")
    with (
        servers.postgresql(folder) as database,
        servers.redis(folder) as redis,
        servers.s3(folder) as s3,
        servers.captioner(folder, DATABASE_URL=database, REDIS_URL=redis, **s3) as site,
    ):
        yield site
