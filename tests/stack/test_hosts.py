"""Several hosts behind one nginx, each in a network namespace of its own: rolling restarts and a cut cable."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import find_program, missing, wait_until
from tests.stack import production, servers
from tests.stack.production import Production, Web
from tests.stack.test_production import assert_nothing_lost, captions_flow, show_answers

pytestmark = pytest.mark.stack


@dataclass
class Network:
    """A bridge of this machine and hosts on it. `name` and the third number of addresses are this run's own."""

    name: str
    number: int

    @property
    def gateway(self) -> str:
        return f"10.213.{self.number}.1"

    def address(self, host: int) -> str:
        return f"10.213.{self.number}.{host + 2}"

    def namespace(self, host: int) -> str:
        return f"{self.name}h{host}"

    def make(self, hosts: int) -> None:
        ip("link", "add", self.name, "type", "bridge")
        ip("addr", "add", f"{self.gateway}/24", "dev", self.name)
        ip("link", "set", self.name, "up")
        for host in range(hosts):
            namespace, cable = self.namespace(host), self.cable(host)
            ip("netns", "add", namespace)
            ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            ip("link", "set", cable, "master", self.name, "up")
            ip("-n", namespace, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
            ip("-n", namespace, "link", "set", "eth0", "up")
            ip("-n", namespace, "link", "set", "lo", "up")

    def remove(self, hosts: int) -> None:
        for host in range(hosts):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "delete", self.namespace(host))
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("link", "delete", self.name)

    def cable(self, host: int) -> str:
        return f"{self.name}c{host}"

    def cut(self, host: int) -> None:
        ip("link", "set", self.cable(host), "down")

    def mend(self, host: int) -> None:
        ip("link", "set", self.cable(host), "up")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


HOSTS = 3


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    find_program("ip", "/sbin", "/usr/sbin")
    number = os.getpid() % 250
    network = Network(f"capt{number}", number)
    try:
        network.make(HOSTS)
    except subprocess.CalledProcessError as error:
        network.remove(HOSTS)
        missing(f"no network namespaces can be made here: {error.stderr.decode().strip()}")
    yield network
    network.remove(HOSTS)


@pytest.fixture(scope="module")
def site(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """Three web hosts; nginx, PostgreSQL behind a pooler, Redis and the S3 server at the gateway."""
    folder: Path = tmp_path_factory.mktemp("hosts")
    with pytest.MonkeyPatch.context() as patch, production.production(folder, network.gateway) as site:
        pooler = servers.pgbouncer_server(folder, site.postgresql, network.gateway)
        site.stack.enter_context(pooler.running())
        site.environment |= {"DATABASE_URL": pooler.url, "DATABASE_TRANSACTION_POOLING": "true"}
        patch.setenv("SSL_CERT_FILE", str(site.nginx.folder / "certificates" / "ca.pem"))
        for host in range(HOSTS):
            inside = [shutil.which("ip") or "ip", "netns", "exec", network.namespace(host)]
            site.web_add(network.address(host), inside).start()
        for web in site.webs:
            web.wait_ready()
        site.nginx.web_servers(*(web.address for web in site.webs))
        yield site


def restart_rolling(site: Production, webs: list[Web]) -> None:
    """One host after the other: out of nginx, stopped, started, ready, back in."""
    for web in webs:
        site.nginx.web_servers(*(other.address for other in webs if other is not web))
        web.stop()
        web.start()
        web.wait_ready()
        site.nginx.web_servers(*(each.address for each in webs))


def test_a_rolling_restart_of_two_hosts_fails_no_request(site: Production) -> None:
    webs = site.webs[:2]
    site.nginx.web_servers(*(web.address for web in webs))
    before = len(site.logged_ids())
    with site.load() as load:
        captions_flow(load)
        restart_rolling(site, webs)
        captions_flow(load)
    show_answers("Rolling restart of two hosts", load)
    assert set(load.statuses()) == {201}
    assert_nothing_lost(site, load)
    assert len(site.logged_ids()) - before == len(load.answers), "and nothing was done twice"


def test_a_host_that_is_cut_off_takes_nothing_along(site: Production, network: Network) -> None:
    site.nginx.web_servers(*(web.address for web in site.webs))
    with site.load(6) as load:
        captions_flow(load)
        network.cut(0)
        captions_flow(load, 30)
        network.mend(0)
        wait_until(site.webs[0].is_ready, "the host is back")
        captions_flow(load)
    show_answers("One of three hosts cut off and back, 6 clients", load)
    # Only what had been sent to the host when it was cut off can fail, and says so: 504 by nginx, which waits for it in
    # vain, or 503 by the host itself, which could not reach the database and is connected again before nginx gave up.
    assert set(load.statuses()) <= {201, 503, 504}
    assert load.statuses()[503] + load.statuses()[504] <= 6
    assert_nothing_lost(site, load)
