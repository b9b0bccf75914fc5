"""The experiments themselves. Each yields rows of figures as they come and writes them to a JSONL file."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from itertools import permutations
from pathlib import Path
from statistics import fmean
from typing import Any

from tests.benchmarks.experiments.bench import HOLDOUT_PHOTOS, Bench, Scores
from training.judging.association import Association
from training.judging.gate import MIN_PHOTOS, ScoredCaptions, paired_bootstrap
from training.judging.measure import ReferenceSet
from training.learning.config import LearnConfig
from training.learning.finetune import Correction
from training.learning.model import FeatureCaptioner

Row = dict[str, Any]
CONFIG = LearnConfig(threads=1)
SIZES = (50, 200, 800)
ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "everything": {},
    "no replay": {"kl_weight": 0.0},
}


def e1(bench: Bench, seeds: int) -> Iterator[Row]:
    """Simulated people correct 50, 200 and 800 captions of a new domain."""
    base = bench.scores(FeatureCaptioner.load(bench.base))
    for seed in range(seeds):
        for count in SIZES:
            corrections = bench.corrections(count, seed)
            scores, seconds = _learned(bench, corrections, replace(CONFIG, seed=seed))
            row = {"corrections": count, "seed": seed, "seconds": seconds}
            verdict = str(scores.gate(base, bench.association(corrections)).verdict)
            yield {**row, "verdict": verdict, **_compared(scores, base)}


def e3(bench: Bench, seeds: int) -> Iterator[Row]:
    """What each part of the objective is worth, at 200 corrections."""
    base = bench.scores(FeatureCaptioner.load(bench.base))
    for seed in range(seeds):
        for name, change in ABLATIONS.items():
            config = replace(CONFIG, seed=seed, **change)
            scores, seconds = _learned(bench, bench.corrections(200, seed), config)
            yield {"objective": name, "seed": seed, "seconds": seconds, **_compared(scores, base)}


def e4(bench: Bench, seeds: int) -> Iterator[Row]:
    """Does the gate promote what is not better? `seeds` times each: equals and shuffled captions."""
    yield from e4_equals(bench, seeds)
    yield from e4_nonsense(bench, seeds)


def e4_equals(bench: Bench, seeds: int) -> Iterator[Row]:
    """Versions that learned the same from other seeds; each pair is judged on other draws of the held-out photos."""
    corrections = bench.corrections(100, 0)
    equals = [_learned(bench, corrections, replace(CONFIG, seed=1000 + seed))[0] for seed in range(3)]
    pairs, association = list(permutations(equals, 2)), bench.association(corrections)
    for seed in range(seeds):
        chosen = random.Random(seed).sample(range(HOLDOUT_PHOTOS), MIN_PHOTOS)
        candidate, champion = (_subset(scores, chosen) for scores in pairs[seed % len(pairs)])
        yield _judged("equals", seed, candidate, champion, association)


def e4_nonsense(bench: Bench, seeds: int) -> Iterator[Row]:
    """Candidates that learned from nonsense, as long as a run of the service would.

    Without original photos, which cost most of the time, nothing can pass: what is not rejected would have passed.
    """
    bench = replace(bench, original=ReferenceSet(bench.original.features[:0], []))
    base = bench.scores(FeatureCaptioner.load(bench.base))
    for seed in range(seeds):
        corrections = _shuffled(bench.corrections(100, seed), seed)
        shuffled, _ = _learned(bench, corrections, replace(CONFIG, seed=seed))
        yield _judged("shuffled captions", seed, shuffled, base, bench.association(corrections))


def e5(bench: Bench, seeds: int) -> Iterator[Row]:
    """Kill a learning process with SIGKILL at random moments, `seeds` times; are the weights the same in the end?"""
    expected = _process_learn(bench, "whole", kills=0)[0]
    actual, killed, starts = _process_learn(bench, "killed", kills=seeds)
    yield {"kills": killed, "starts": starts, "same_weights": actual == expected, "sha256": actual}


EXPERIMENTS: Mapping[str, Callable[[Bench, int], Iterator[Row]]] = {
    "e1": e1,
    "e3": e3,
    "e4": e4,
    "e5": e5,
}


# --- Helpers ---


def _learned(bench: Bench, corrections: list[Correction], config: LearnConfig) -> tuple[Scores, float]:
    started = time.monotonic()
    captioner = bench.learn(corrections, config)
    seconds = time.monotonic() - started
    return bench.scores(captioner), round(seconds, 1)


def _judged(
    case: str, seed: int, candidate: Scores, champion: Scores, association: Association | None
) -> Row:
    decision = candidate.gate(champion, association)
    failed = [str(check.question) for check in decision.checks if check.passed is False]
    return {
        "case": case,
        "seed": seed,
        "verdict": str(decision.verdict),
        "failed": failed,
        **_compared(candidate, champion),
    }


def _compared(scores: Scores, base: Scores) -> Row:
    pairs = {"domain": (scores.domain, base.domain), "original": (scores.original, base.original)}
    row = {name: _figures(*pair) for name, pair in pairs.items() if pair[0].captions}
    return row | {"fit": asdict(paired_bootstrap(scores.domain.fit, base.domain.fit))}


def _figures(measured: ScoredCaptions, base: ScoredCaptions) -> Row:
    gain = paired_bootstrap(measured.cider_d, base.cider_d)
    return {
        "before": round(fmean(base.cider_d), 2),
        "after": round(fmean(measured.cider_d), 2),
        **{name: round(value, 2) for name, value in asdict(gain).items()},
    }


def _subset(scores: Scores, chosen: list[int]) -> Scores:
    domain = scores.domain
    part = ScoredCaptions(
        [domain.captions[i] for i in chosen],
        [domain.cider_d[i] for i in chosen],
        [domain.strangers[i] for i in chosen],
    )
    return Scores(part, scores.original, [scores.people[i] for i in chosen])


def _shuffled(corrections: list[Correction], seed: int) -> list[Correction]:
    ideals = [correction.ideal for correction in corrections]
    random.Random(seed).shuffle(ideals)
    return [c._replace(ideal=ideal) for c, ideal in zip(corrections, ideals, strict=True)]


def _process_learn(bench: Bench, name: str, kills: int) -> tuple[str, int, int]:
    """Learn in processes of their own, the first `kills` of which are killed; SHA-256 of the weights, kills, starts."""
    folder = bench.folder / f"e5-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    arguments = [str(path.resolve()) for path in (bench.base, bench.folder, folder)]
    generator, killed, starts = random.Random(1), 0, 0
    while True:
        starts += 1
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.experiments.learner", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[3],
        )
        if child.stdout:
            child.stdout.readline()  # it says when it begins to learn
        if killed < kills:
            time.sleep(generator.uniform(0.2, 2.0))
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
                killed += 1
                child.wait()
                continue
        output = child.communicate()[0]
        if child.returncode:
            raise RuntimeError(f"The learning process ended by itself with status {child.returncode}.")
        return output.split()[-1], killed, starts


def rows_write(rows: Iterator[Row], path: Path) -> Iterator[Row]:
    """Pass rows on, writing each to `path` as it comes, so that a run that is stopped leaves what it found."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            file.flush()
            yield row
