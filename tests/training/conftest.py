"""Feedback on drawn photos, with a tiny random checkpoint as the champion."""

from __future__ import annotations

import io
import json
import tarfile
import uuid
from pathlib import Path

import pytest
import torch
from django.contrib.auth.models import User

from captioner.captions.captions import caption_create
from captioner.captions.feedback import feedback_review, feedback_submit
from captioner.models import Caption, Feedback, Owner
from models_registry import promotions, versions
from models_registry.models import Alias, ModelVersion
from tests.captioner.inference.checkpoints import save_vit_gpt2
from tests.photos import draw_scene
from training import services
from training.data import anchor
from training.learning.blending import Blend
from training.learning.config import LearnConfig


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny")
    save_vit_gpt2(folder, max_new_tokens=6)
    return folder


@pytest.fixture(scope="session")
def anchor_drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An anchor set of six drawn photos; to look at the bundled one takes a second, which runs here are many of."""
    folder = tmp_path_factory.mktemp("anchor")
    with tarfile.open(folder / anchor.PHOTOS, "w") as tar:
        for number in range(6):
            row = json.dumps({"captions": [f"a drawn scene number {number}"]}).encode()
            for name, content in ((f"{number}.jpg", draw_scene(800 + number)), (f"{number}.json", row)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return folder


@pytest.fixture
def base(db: None, tiny_checkpoint: Path, settings, tmp_path: Path) -> ModelVersion:
    """A published tiny champion; runs are short and keep their files in a folder of the test's own."""
    settings.DATA_DIR = tmp_path / "data"
    settings.CELERY_TASK_ALWAYS_EAGER = False
    version = versions.version_publish(tiny_checkpoint, model_name="tiny", origin="random", licence="none")
    promotions.version_promote(version, alias=Alias.Name.CHAMPION, reason="test")
    return version


@pytest.fixture(autouse=True)
def _quick_runs(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, anchor_drawn: Path) -> None:
    """Runs of a few steps; nothing is sent to a broker, the test is the trainer."""
    if "base" not in request.fixturenames:
        return
    from training.learning import pipeline

    def config(seed: int) -> LearnConfig:
        return LearnConfig(
            seed=seed, batch=2, max_steps=4, save_every=2, eval_every=2, patience=9, lr=5e-4, threads=1
        )

    monkeypatch.setattr(pipeline, "LearnConfig", config)
    # Random weights learn nothing in four steps; what chooses the share has tests of its own.
    monkeypatch.setattr(pipeline, "blend_find", lambda *_: Blend(1.0, {1.0: (2.0, 1.0)}))
    monkeypatch.setattr(anchor, "FOLDER", anchor_drawn)
    # On a busy machine two equal models take their turns unequally; the ratio's own rule is tested with the gate.
    monkeypatch.setattr(pipeline, "latency_ratio", lambda *_: 1.0)
    # A process that loads torch; what it looks at has tests of its own, and the rehearsal runs it.
    monkeypatch.setattr(pipeline, "golden_check", lambda _: (True, "12 of 12 captioned"))
    monkeypatch.setattr(services, "run_enqueue", lambda run: None)


def feedback_give(
    number: int, *, reviewer: User | None = None, owner: Owner | None = None, **said
) -> Feedback:
    """Somebody, or a new visitor, captions photo `number` and says something; approved if there is a reviewer."""
    owner = owner or Owner(visitor=uuid.uuid4())
    caption = caption_create(draw_scene(number), owner=owner, source=Caption.Source.WEB)
    said = said or {"ideal_caption": f"a small brown dog number {number % 3}"}
    feedback, _ = feedback_submit(caption, **said)
    if reviewer is not None:
        approved = Feedback.objects.filter(pk=feedback.pk)
        feedback_review(approved, Feedback.Status.APPROVED, reviewer=reviewer)
    return feedback


@pytest.fixture
def approved(base: ModelVersion, fake_engine, reviewer: User) -> list[Feedback]:
    """Approved corrections of twelve photos."""
    return [feedback_give(number, reviewer=reviewer) for number in range(12)]
