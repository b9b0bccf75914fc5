"""What /metrics says, and to whom."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.test import Client
from prometheus_client.mmap_dict import MmapedDict

from captioner.captions.captions import caption_create
from captioner.exceptions import ClientGone, InvalidImage, Overloaded
from captioner.models import Caption, Owner
from captioner.ops import metrics
from tests.conftest import FakeEngine, draw_jpeg, metric
from tests.house import ROOT
from tests.processes import missing

NAMES = {
    "captioner_queue_depth",
    "captioner_queue_seconds",
    "captioner_batch_size",
    "captioner_preprocess_seconds",
    "captioner_inference_seconds",
    "captioner_rejects_total",
    "captioner_model_info",
    "captioner_model_load_seconds",
    "captioner_canary_share",
    "captioner_challengers_taken_back_total",
    "captioner_captions_total",
}


@pytest.mark.parametrize(
    ("token", "production", "sent", "status"),
    [
        ("", False, None, 200),
        ("", True, None, 404),
        ("s3cret", False, None, 401),
        ("s3cret", True, "Bearer wrong", 401),
        ("s3cret", True, "Bearer s3cré", 401),
        ("s3cret", True, "Bearer s3cret", 200),
    ],
)
def test_who_may_see_them(
    client: Client, settings, token: str, production: bool, sent: str | None, status: int
) -> None:
    settings.METRICS_TOKEN, settings.PRODUCTION = token, production
    response = client.get("/metrics", headers={"Authorization": sent} if sent else {})
    assert response.status_code == status
    assert (b"captioner_" in response.content) == (status == 200)


def test_prometheus_needs_no_allowed_host_and_no_tls(client: Client, settings) -> None:
    settings.ALLOWED_HOSTS, settings.SECURE_SSL_REDIRECT = ["captions.example.org"], True
    assert client.get("/metrics", headers={"Host": "10.0.0.7:8000"}).status_code == 200


@pytest.mark.django_db
def test_each_photo_is_counted_by_how_it_went(
    client: Client, fake_engine: FakeEngine, visitor: Owner
) -> None:
    samples = [
        'captioner_captions_total{outcome="captioned"}',
        'captioner_captions_total{outcome="rejected"}',
        'captioner_captions_total{outcome="failed"}',
        'captioner_rejects_total{reason="overloaded"}',
        'captioner_rejects_total{reason="invalid_image"}',
        "captioner_queue_seconds_count",
        "captioner_preprocess_seconds_count",
    ]
    before = {sample: metric(client, sample) for sample in samples}

    def create(data: bytes) -> None:
        caption_create(data, owner=visitor, source=Caption.Source.API)

    create(draw_jpeg())
    with pytest.raises(InvalidImage):
        create(b"no photo")
    fake_engine.error = Overloaded("busy", retry_after=1)
    with pytest.raises(Overloaded):
        create(draw_jpeg())
    fake_engine.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        create(draw_jpeg())
    assert [metric(client, sample) - before[sample] for sample in samples] == [1, 2, 1, 1, 1, 1, 1]


@pytest.mark.django_db
def test_the_queue_holds_what_is_neither_answered_nor_given_up(
    client: Client, fake_engine: FakeEngine, visitor: Owner
) -> None:
    before = metric(client, "captioner_queue_depth")
    while_waiting = []

    def leave() -> bool:
        while_waiting.append(metric(client, "captioner_queue_depth") - before)
        return True

    def create(colour: str) -> None:
        caption_create(draw_jpeg(colour=colour), owner=visitor, source=Caption.Source.API, is_abandoned=leave)

    create("teal")
    assert metric(client, "captioner_queue_depth") == before
    fake_engine.never_answers = True
    with pytest.raises(ClientGone):
        create("red")
    assert while_waiting == [1]
    assert metric(client, "captioner_queue_depth") == before


def test_all_names_are_there_once_a_model_serves(client: Client) -> None:
    metrics.serving_start()
    metrics.model_info.labels("ours", "ours-1").set(1)
    metrics.model_load_seconds.set(1.5)
    metrics.batch_done(4, 0.2)
    assert metric(client, "captioner_model_load_seconds") == 1.5
    shown = client.get("/metrics").content.decode()
    assert {line.split()[2] for line in shown.splitlines() if line.startswith("# TYPE captioner_")} >= NAMES


@pytest.mark.django_db
def test_requests_are_counted_by_view_and_status(client: Client) -> None:
    found = 'captioner_http_requests_total{method="GET",status="200",view="api:caption-list"}'
    missing = 'captioner_http_requests_total{method="GET",status="404",view="none"}'
    before = metric(client, found), metric(client, missing)
    client.get("/api/v1/captions")
    client.get("/made/up/1")
    client.get("/made/up/2")
    client.generic("MADEUP", "/made/up/3")
    assert (metric(client, found) - before[0], metric(client, missing) - before[1]) == (1, 2)
    assert "MADEUP" not in client.get("/metrics").content.decode()


def test_numbers_of_other_processes_are_added_and_survive_them(client: Client) -> None:
    sample = 'captioner_captions_total{outcome="captioned"}'
    before, depth = metric(client, sample), metric(client, "captioner_queue_depth")
    code = (
        "import django; django.setup(); from captioner.ops import metrics;"
        "metrics.captions.labels('captioned').inc(5); metrics.queue_depth.inc(3);"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert metric(client, sample) - before == 5
    metrics.process_begin()  # of its successor; nobody has told that it has ended
    assert metric(client, "captioner_queue_depth") == depth, "nobody waits for a process that is gone"


def test_a_new_start_forgets_an_earlier_run_and_keeps_who_lives(client: Client, settings) -> None:
    metrics.captions.labels("captioned").inc()
    dead = settings.METRICS_DIR / "counter_4194305.db"  # above the largest process id
    dead.write_bytes(b"")
    own = settings.METRICS_DIR / f"counter_{os.getpid()}.db"
    metrics.serving_start()
    assert own.exists()
    assert not dead.exists()


# Run on a disk of 256 KiB. Without care the second half ends in SIGBUS, where numbers lie in memory mapped from it.
ON_A_FULL_DISK = """
import os
from pathlib import Path
import django; django.setup()
from captioner.ops import metrics
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
metrics.captions.labels("captioned").inc()
try:
    (folder / "filler").write_bytes(b"x" * 2**20)
except OSError:
    pass
def counted(name, **labels):
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return registry.get_sample_value(name, labels)
for number in range(500):  # more than a page of them
    metrics.http_requests.labels(f"view {number}", "GET", 200).inc()
    metrics.captions.labels("captioned").inc()
metrics.queue_depth.inc()  # in a file that is new
before = counted("captioner_captions_total", outcome="captioned")
(folder / "filler").unlink()
metrics.captions.labels("captioned").inc()
metrics.queue_depth.inc()
print(before is not None, counted("captioner_captions_total", outcome="captioned"))
print(counted("captioner_http_requests_total", view="view 499", method="GET", status="200"))
print(counted("captioner_queue_depth"))
"""


def test_a_full_disk_costs_neither_the_process_nor_a_number(tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size=256k tmpfs {tmp_path} && exec "$@"'
    alone = [
        "unshare",
        "--mount",
        *([] if os.geteuid() == 0 else ["--map-root-user"]),
        "sh",
        "-c",
        mount,
        "-",
    ]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        missing("disks of a test's own (unshare, mount) are not allowed")
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = [*alone, sys.executable, "-c", ON_A_FULL_DISK]
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False, timeout=60
    )
    assert ended.returncode == 0, (ended.returncode, ended.stderr)
    assert ended.stdout.split() == ["True", "502.0", "1.0", "2.0"]
    assert ended.stderr.count("cannot be written") <= 2, "one line for each file"


def test_what_cannot_be_written_follows_once_it_can(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "no such folder yet" / "counter_1.db"
    numbers = metrics.NumbersFile(str(path))
    numbers.write_value('["é"]', 1.5, 2.0)
    assert numbers.read_value('["é"]') == (1.5, 2.0)
    assert numbers.read_value("new") == (0.0, 0.0)
    assert len(caplog.records) == 1
    path.parent.mkdir()
    numbers.write_value("new", 3.0, 0.0)
    numbers.close()
    successor = metrics.NumbersFile(str(path))
    assert [successor.read_value(key)[0] for key in ('["é"]', "new")] == [1.5, 3.0]
    kept = MmapedDict.read_all_values_from_file(str(path))
    assert [(key, value) for key, value, _, _ in kept] == [('["é"]', 1.5), ("new", 3.0)]
