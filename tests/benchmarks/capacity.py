"""The figures of deploy/CAPACITY.md: `python -m tests.benchmarks.capacity PHOTOS [SECONDS]`, PHOTOS a folder of JPEGs.

Runs deploy/'s nginx and gunicorn with PostgreSQL, Redis and an S3 server here, sends the photos over TLS with 1 and
with 8 clients, and prints what a caption took of everything. Run it on small photos and on phone photos.
"""

import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.client import Load
from tests.stack import production


def main(photos: list[Path], seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder, production.production(Path(folder)) as site:
        os.environ["SSL_CERT_FILE"] = str(site.nginx.folder / "certificates" / "ca.pem")
        web = site.web_add()
        web.start()
        web.wait_ready()
        site.nginx.web_servers(web.address)
        source = (photo.read_bytes() for photo in photos)
        for clients in (1, 8):
            run(site, source, clients, 5)  # to warm up
            before = cpu_of_all(site)
            started = time.monotonic()
            times = run(site, source, clients, seconds)
            elapsed = time.monotonic() - started
            quantiles = statistics.quantiles(times, n=20)
            say(f"{clients} clients: {len(times) / elapsed:.1f} captions/s")
            say(f"  p50 {quantiles[9] * 1000:.0f} ms, p95 {quantiles[18] * 1000:.0f} ms")
            for name, cpu in cpu_of_all(site).items():
                say(f"  CPU of {name}: {(cpu - before[name]) / len(times) * 1000:.1f} ms a caption")
        for name, pid in (("web", web.pid), ("nginx", site.nginx.server.pid)):
            memory = sum(resident_bytes(member) for member in family(pid))
            say(f"memory of {name}: {memory / 2**20:.0f} MiB")
        storage(site)


def run(site: production.Production, source: Iterator[bytes], clients: int, seconds: float) -> list[float]:
    """Seconds of each answered caption."""
    with Load(site.url, clients, site.key, photos=source) as load:
        time.sleep(seconds)
    assert set(load.statuses()) == {201}, load.statuses()
    assert not load.broken
    return [answer.seconds for answer in load.answers]


def storage(site: production.Production) -> None:
    site.manage("objects", "export", f"{site.folder}/objects")
    sizes = [path.stat().st_size for path in (site.folder / "objects" / "photos").rglob("*.jpg")]
    say(f"stored photo: {statistics.mean(sizes) / 1024:.0f} KiB on average of {len(sizes)}")
    with psycopg.connect(site.postgresql.url, autocommit=True) as database:
        database.execute("VACUUM FULL")
        tables = ("captioner_caption", "captioner_photo")
        size = sum(database.execute(f"SELECT pg_total_relation_size('{t}')").fetchone()[0] for t in tables)
        count = database.execute("SELECT count(*) FROM captioner_caption").fetchone()[0]
    say(f"database: {size / count:.0f} bytes a caption with its photo's row and all indexes, of {count}")


def cpu_of_all(site: production.Production) -> dict[str, float]:
    """CPU seconds so far of each part of the service."""
    processes = {
        "web": site.webs[0],
        "nginx": site.nginx.server,
        "PostgreSQL": site.postgresql,
        "Redis": site.redis,
    }
    return {name: sum(map(cpu_seconds, family(process.pid))) for name, process in processes.items()}


def family(pid: int) -> list[int]:
    """A process and its children."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def cpu_seconds(pid: int) -> float:
    """Of a process, with its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.environ["CI"] = "true"  # what is missing is an error
    main(sorted(Path(sys.argv[1]).rglob("*.jpg")), float(sys.argv[2]) if len(sys.argv) > 2 else 40)
