"""A Ceph object gateway (RGW) with a monitor and one object store in memory: an S3 server that checks signatures."""

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.processes import Process, find_program, free_port, listens, process, wait_until
from tests.stack.servers import bucket_make

_PROGRAMS = (
    "ceph",
    "ceph-authtool",
    "ceph-mon",
    "ceph-osd",
    "monmaptool",
    "radosgw",
    "radosgw-admin",
)
_CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{port_v2}/0,v1:127.0.0.1:{port_v1}/0]
public addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
mon allow pool size one = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 2147483648
rgw rados pool pg num min = 1
run dir = {folder}
admin socket = {folder}/$name.asok
pid file =
log file = {folder}/$name.log
crash dir = {folder}
keyring = {folder}/$name.keyring
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
"""
_ADMIN = ("--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")


class _Cluster:
    def __init__(self, folder: Path) -> None:
        self.programs = {name: find_program(name, "/usr/sbin", "/sbin") for name in _PROGRAMS}
        # Short, because the path of a socket may have 107 characters.
        self.folder = folder / "ceph"
        self.folder.mkdir()
        self.fsid = str(uuid.uuid4())
        self.ports = {"port_v2": free_port(), "port_v1": free_port()}
        text = _CONFIGURATION.format(folder=self.folder, fsid=self.fsid, **self.ports)
        (self.folder / "ceph.conf").write_text(text)

    def run(self, program: str, *arguments: str | Path) -> str:
        result = subprocess.run(
            [self.programs[program], "-c", self.folder / "ceph.conf", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=self.folder,
        )
        assert result.returncode == 0, f"{program} {arguments}: {result.stdout} {result.stderr}"
        return result.stdout

    def daemon(self, program: str, *arguments: str) -> contextlib.AbstractContextManager[Process]:
        command = [self.programs[program], "-f", "-c", self.folder / "ceph.conf", *arguments]
        return process(command, self.folder / f"{program}.out", cwd=self.folder)

    def monitor_prepare(self) -> None:
        keyring, admin = self.folder / "mon.keyring", self.folder / "client.admin.keyring"
        self.run(
            "ceph-authtool", keyring, "--create-keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"
        )
        self.run("ceph-authtool", admin, "--create-keyring", "--gen-key", "-n", "client.admin", *_ADMIN)
        self.run("ceph-authtool", keyring, "--import-keyring", admin)
        address = f"[v2:127.0.0.1:{self.ports['port_v2']},v1:127.0.0.1:{self.ports['port_v1']}]"
        monmap = self.folder / "monmap"
        self.run("monmaptool", "--create", "--addv", "a", address, "--fsid", self.fsid, monmap)
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)

    def store_prepare(self) -> None:
        (self.folder / "osd").mkdir()
        identity = str(uuid.uuid4())
        self.run("ceph", "osd", "create", identity)
        self.key_make("osd.0", "mon", "allow profile osd", "osd", "allow *")
        self.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", identity)

    def key_make(self, name: str, *capabilities: str) -> None:
        self.run("ceph", "auth", "get-or-create", name, *capabilities, "-o", self.folder / f"{name}.keyring")


@contextlib.contextmanager
def gateway(folder: Path) -> Iterator[dict[str, str]]:
    """A gateway with an empty bucket; yields the environment variables that name it."""
    cluster = _Cluster(folder)
    port = free_port()
    cluster.monitor_prepare()
    with cluster.daemon("ceph-mon", "-i", "a"):
        wait_until(lambda: listens(cluster.ports["port_v2"]), "the Ceph monitor answers")
        cluster.store_prepare()
        cluster.key_make("client.rgw", "mon", "allow rw", "osd", "allow rwx")
        endpoint = f"beast endpoint=127.0.0.1:{port}"
        with (
            cluster.daemon("ceph-osd", "-i", "0"),
            cluster.daemon("radosgw", "-n", "client.rgw", "--rgw-frontends", endpoint),
        ):
            wait_until(lambda: listens(port), f"the Ceph gateway answers (see {cluster.folder})", seconds=120)
            environment = {
                "S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "S3_BUCKET": "captioner",
                "S3_ACCESS_KEY": "ceph-key",
                "S3_SECRET_KEY": os.urandom(16).hex(),
            }
            cluster.run(
                "radosgw-admin",
                *("user", "create", "--uid", "captioner", "--display-name", "Captioner"),
                *("--access-key", environment["S3_ACCESS_KEY"], "--secret", environment["S3_SECRET_KEY"]),
            )
            bucket_make(environment)
            yield environment
