"""The statistics and the tables of `make bench`, its clients and its processes. No figure is asserted."""

import io
import itertools
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from models_registry import bundled, promotions, versions
from tests.benchmarks.speed import __main__ as command
from tests.benchmarks.speed import contenders
from tests.benchmarks.speed.comparison import Plan, benchmark_run
from tests.benchmarks.speed.errors import BenchmarkError, NotReady
from tests.benchmarks.speed.load import load_run
from tests.benchmarks.speed.photos import Photo, photos_draw, photos_read
from tests.benchmarks.speed.report import (
    BARE,
    ENGINE,
    SERVICE,
    Pass,
    Row,
    comparisons,
    identical_share,
    quantile,
    report_text,
    spread,
)
from tests.captioner.inference.checkpoints import save_vit_gpt2
from tests.photos import draw_jpeg

# --- Statistics -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.2, 1), (0.5, 3), (0.6, 3), (0.61, 4), (0.99, 5), (1.0, 5)]
)
def test_a_quantile_is_the_least_value_that_enough_values_do_not_exceed(share: float, expected: int) -> None:
    assert quantile([5, 1, 4, 2, 3], share) == expected


def test_a_spread_shows_median_lowest_and_highest() -> None:
    assert spread([0.0123, 0.0119, 0.0128], scale=1000) == "12.3 (11.9-12.8)"


def test_a_spread_of_one_round_is_just_its_value() -> None:
    assert spread([1.234], digits=2) == "1.23"


def test_captions_are_identical_whatever_their_white_space() -> None:
    answers = (("a", "two  dogs "), ("b", "a dog"), ("c", "a cat"), ("c", "A cat"))
    reference = {"a": "two dogs", "b": "a dog", "c": "a cat"}
    assert identical_share([Pass(1, (), answers[:3]), Pass(1, (), answers[3:])], reference) == 0.75


def one_pass(p50: float, photos_per_second: float = 1, caption: str = "a dog") -> Pass:
    return Pass(photos_per_second, (p50 / 2, p50, p50 * 2), (("photo.jpg", caption),))


def passes_of_two_rounds() -> dict[Row, list[Pass]]:
    """A bare loop that is fastest with 2 threads alone and with 1 thread in batches, and a service."""
    return {
        Row(BARE, batch=1, threads=1): [one_pass(0.08, 12), one_pass(0.10, 10)],
        Row(BARE, batch=1, threads=2): [one_pass(0.04, 20), one_pass(0.05, 16)],
        Row(BARE, batch=8, threads=1): [Pass(40, (), ()), Pass(30, (), ())],
        Row(ENGINE, batch=1, threads=1): [one_pass(0.02, 50), one_pass(0.02, 60)],
        Row(SERVICE, clients=1): [one_pass(0.02), one_pass(0.05)],
        Row("other", clients=1): [one_pass(0.10), one_pass(0.10)],
        Row(SERVICE, clients=8): [one_pass(1, 20, "a cat"), one_pass(1, 45)],
        Row("other", clients=8): [one_pass(1, 10), one_pass(1, 15)],
    }


def test_the_service_is_compared_round_by_round_with_the_fastest_setting_of_each_loop() -> None:
    found = {each.label.partition(" / ")[2]: each.ratios for each in comparisons(passes_of_two_rounds())}
    assert found[f"{BARE}, batch 1, 2 threads"] == pytest.approx([0.5, 1.0])
    assert found[f"{BARE}, batch 8, 1 thread"] == pytest.approx([0.5, 1.5])
    assert found[f"{ENGINE}, batch 1, 1 thread"] == pytest.approx([0.4, 0.75])


def test_the_service_is_compared_with_each_other_server_at_the_same_number_of_clients() -> None:
    found = {each.label.partition(" / ")[2]: each.ratios for each in comparisons(passes_of_two_rounds())}
    assert found["other, 1 client"] == pytest.approx([0.2, 0.5])
    assert found["other, 8 clients"] == pytest.approx([2.0, 3.0])


def test_the_report_shows_every_contender_and_how_often_it_agrees_with_the_first() -> None:
    passes = passes_of_two_rounds()
    del passes[Row(BARE, batch=8, threads=1)]
    notes, results, ratios = report_text(["two cores"], passes).split("\n\n")
    assert notes == "- two cores"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in results.splitlines()[2:]]
    assert [row[0] for row in cells] == [row.contender for row in passes]
    assert cells[0] == [
        BARE,
        "1",
        "1",
        "-",
        "11.0 (10.0-12.0)",
        "90.0 (80.0-100.0)",
        "200.0",
        "200.0",
        "100%",
    ]
    assert cells[5][3] == "8"
    assert cells[5][-1] == "50%"
    assert ">= 0.90" in ratios


# --- Photos -----------------------------------------------------------------------------------------------------


def photo(number: int = 0) -> Photo:
    return Photo(Path(f"{number}.jpg"), draw_jpeg(colour=f"rgb({number}, 80, 80)"), 0.003)


def test_variants_of_a_photo_are_different_files_of_the_same_picture() -> None:
    files = [photo().data, *(photo().variant(number) for number in range(3))]
    assert len(set(files)) == 4
    assert len({Image.open(io.BytesIO(file)).tobytes() for file in files}) == 1


def test_only_jpeg_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.jpeg"):
        (tmp_path / name).write_bytes(draw_jpeg((200, 100)))
    (tmp_path / "notes.txt").write_text("not a photo")
    photos = photos_read(tmp_path)
    assert [each.path.name for each in photos] == ["a.jpeg", "b.JPG"]
    assert photos[0].megapixels == 0.02


def test_a_folder_without_photos_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="holds no photos"):
        photos_read(tmp_path)


def test_a_file_that_is_no_jpeg_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not a photo")
    with pytest.raises(BenchmarkError, match=r"text\.jpg is no JPEG"):
        photos_read(tmp_path)


def test_drawn_photos_are_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.benchmarks.speed.photos.DRAWN_SIZES", (((64, 48), 2), ((320, 200), 1)))
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        photos_draw(folder)
    one, two = photos_read(tmp_path / "one"), photos_read(tmp_path / "two")
    assert [each.data for each in one] == [each.data for each in two]
    assert len({each.data for each in one}) == 3


# --- Clients ----------------------------------------------------------------------------------------------------


class StubServer(ThreadingHTTPServer):
    """Answers each upload with the caption "stub", or with `status`, after a moment."""

    daemon_threads = True
    status = 201

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), StubHandler)
        self.bodies: list[bytes] = []
        self.connections: set[tuple[str, int]] = set()


class StubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StubServer

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.connections.add(self.client_address)
        time.sleep(0.01)
        content = json.dumps({"caption": "stub"}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def stub_server() -> Iterator[StubServer]:
    server = StubServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def test_clients_share_the_photos_over_one_connection_each_and_never_send_a_file_twice() -> None:
    with stub_server() as server:
        answers = load_run(server.server_port, [photo(number % 3) for number in range(24)], clients=4)
    assert len(answers) == len(set(server.bodies)) == 24
    assert len(server.connections) == 4
    assert {answer.caption for answer in answers} == {"stub"}
    assert sorted(answer.photo for answer in answers) == sorted(f"{number % 3}.jpg" for number in range(24))
    assert all(one.finished_at <= two.finished_at for one, two in itertools.pairwise(answers))


def test_a_refused_photo_ends_the_run_and_says_what_the_server_said() -> None:
    with stub_server() as server:
        server.status = 429
        with pytest.raises(BenchmarkError, match=r"0\.jpg was answered with 429: .*stub"):
            load_run(server.server_port, [photo()], clients=1)


def test_a_server_that_is_still_loading_is_told_from_one_that_refuses() -> None:
    with stub_server() as server:
        server.status = 503
        with pytest.raises(NotReady):
            load_run(server.server_port, [photo()], clients=1)


# --- Processes --------------------------------------------------------------------------------------------------

# A peer that starts a process of its own, and says in its folder which two there are.
PEER = """
import json, os, subprocess, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        content = json.dumps({"caption": "a peer's caption"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
    def log_message(self, *args):
        pass

child = subprocess.Popen(["sleep", "600"])
Path(__file__).with_name("pids").write_text(f"{os.getpid()} {child.pid}")
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""


def peer_script(folder: Path, code: str = PEER) -> Path:
    script = folder / "peer_stub.py"
    script.write_text(code)
    return script


def state(pid: int) -> str:
    """The state letter of a process (proc(5)), or nothing where there is none."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.read_text().rpartition(")")[2].split()[0] if stat.exists() else ""


def comes_to(pid: int, *wanted: str) -> bool:
    """Whether the process gets into one of these states; a signal takes a moment to arrive."""
    for _ in range(200):
        if state(pid) in wanted:
            return True
        time.sleep(0.05)
    return False


def test_a_peer_sleeps_between_its_turns_and_takes_its_children_with_it(tmp_path: Path) -> None:
    script = peer_script(tmp_path)
    with contenders.peer(script, tmp_path, tmp_path, photo()) as server:
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert all(comes_to(pid, "T") for pid in pids)
        assert [answer.caption for answer in server.load([photo()], clients=1)] == ["a peer's caption"]
        assert server.uploads == 2  # one of them to see that it is ready
    assert all(comes_to(pid, "", "Z") for pid in pids)


def test_a_peer_that_cannot_start_is_reported_with_its_last_words_and_what_to_install(tmp_path: Path) -> None:
    script = peer_script(tmp_path, "import fastapi_of_another_world")
    with (
        pytest.raises(
            BenchmarkError, match=r"(?s)peer_stub.*'fastapi_of_another_world'.*tests/requirements\.txt"
        ),
        contenders.peer(script, tmp_path, tmp_path, photo()),
    ):
        pass


def test_contenders_learn_how_to_compute_but_not_where_our_data_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://production/captions")
    monkeypatch.setenv("S3_BUCKET", "production")
    monkeypatch.setenv("CAPTION_THREADS", "3")
    environment = contenders._options()["env"]
    assert environment["CAPTION_THREADS"] == "3"
    assert environment["PATH"] == os.environ["PATH"]
    assert not {"DATABASE_URL", "S3_BUCKET", "CAPTIONER_DATA_DIR"} & environment.keys()


# --- The whole --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--photos", "nowhere"], "nowhere does not exist"),
        (["--peer", "nobody.py"], "nobody.py does not exist"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert message in capsys.readouterr().err


def measured_plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """What `make bench` would measure."""
    plans: list[Plan] = []
    monkeypatch.setattr(command, "benchmark_run", lambda plan: plans.append(plan) or "")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    command.main([])
    return plans[0]


@pytest.mark.django_db
def test_the_weights_that_serve_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    version = versions.version_publish(tmp_path, model_name="mine", origin="a test", licence="none")
    promotions.version_promote(version, reason="a test")
    plan = measured_plan(monkeypatch)
    assert plan.model_version == version.pk
    assert (plan.weights / "config.json").read_text() == "{}"


@pytest.mark.django_db
def test_before_the_set_up_the_bundled_starter_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measured_plan(monkeypatch).weights == bundled.STARTER_DIR


@pytest.mark.stack
def test_loops_service_and_peers_caption_the_same_photos(tmp_path: Path) -> None:
    weights, photos = tmp_path / "tiny", tmp_path / "photos"
    photos.mkdir()
    save_vit_gpt2(weights)
    for number in range(2):
        (photos / f"{number}.jpg").write_bytes(photo(number).data)
    plan = Plan(
        weights=weights,
        model_version="tiny-1",
        scratch=tmp_path,
        photos=photos,
        peers=[peer_script(tmp_path)],
        rounds=1,
    )
    notes, results, ratios = benchmark_run(plan).split("\n\n")
    assert "tiny-1" in notes
    stored, uploads = re.search(r"stored (\d+) photos for (\d+) uploads", notes).groups()
    assert stored == uploads
    identical = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in results.splitlines()[2:]}
    assert identical == {BARE: "100%", ENGINE: "100%", SERVICE: "100%", "stub": "0%"}
    assert SERVICE in ratios
    assert not list(tmp_path.glob("bench-*"))
