"""E1: simulated people correct 100, 400 and 800 captions of a new domain; weights alone learn, as at night.

Wanted: the lower bound of the gain above 0 at 400 and 800, never below -2 at 100, original photos at least -1, and
captions that are a correction of another photo word for word at most 1 % more often than the base's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from tests.benchmarks.experiments.bench import bench_open
from training.data.caption_text import caption_words
from training.judging.gate import ScoredCaptions, paired_bootstrap
from training.learning.config import LearnConfig
from training.learning.finetune import Correction
from training.learning.model import FeatureCaptioner

Row = dict[str, Any]
CONFIG = LearnConfig(threads=1)
SIZES = (100, 400, 800)


def run(options: argparse.Namespace) -> Iterator[Row]:
    bench = bench_open(options.data, options.base, options.folder)
    base = bench.scores(FeatureCaptioner.load(bench.base))
    for seed in range(options.seeds):
        for count in options.sizes or SIZES:
            corrections = bench.corrections(count, seed)
            started = time.monotonic()
            captioner, blend = bench.learn(corrections, seed, CONFIG)
            seconds = round(time.monotonic() - started, 1)
            scores = bench.scores(captioner)
            yield {
                "corrections": count,
                "seed": seed,
                "seconds": seconds,
                "share": blend.share,
                "inner": blend.gains,
                "domain": compared(scores.domain, base.domain),
                "original": compared(scores.original, base.original),
                "repeated": repeated(scores.domain.captions, corrections),
                "repeated_by_base": repeated(base.domain.captions, corrections),
            }


def compared(measured: ScoredCaptions, base: ScoredCaptions) -> Row:
    """CIDEr-D before and after, and the interval of the gain."""
    gain = asdict(paired_bootstrap(measured.cider_d, base.cider_d))
    means = {"before": fmean(base.cider_d), "after": fmean(measured.cider_d)}
    return {name: round(value, 2) for name, value in (means | gain).items()}


def repeated(captions: Sequence[str], corrections: Sequence[Correction]) -> float:
    """Share, in percent, of captions of held-out photos that are somebody's correction word for word."""
    said = {caption_words(row.ideal) for row in corrections}
    return round(100 * fmean(caption_words(caption) in said for caption in captions), 2)
