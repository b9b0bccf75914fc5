"""What versions made of people's feedback: which taught, which tests, what was left out, what was deleted since."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from functools import partial

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from captioner.models import Feedback, FeedbackUse
from models_registry.models import ModelVersion
from models_registry.versions import version_file_rewrite

logger = logging.getLogger(__name__)

SNAPSHOT_FILE = "data/feedback.jsonl"  # of a version: the rows it learned from, by number and hash
_Role = FeedbackUse.Role


def uses_record(
    version: ModelVersion | None, roles: Mapping[int, tuple[FeedbackUse.Role, str]], said: Mapping[int, str]
) -> None:
    """Keep what `version` made of each piece of feedback: its number -> role, and why it was left out.

    Without a version it is what a run made of it that learned nothing yet: so it stands until the next run's end.
    `said` has the corrections by number, as they were learned. What was deleted or replaced since then has no row any
    more, and marks the version instead.
    """
    stored = dict(Feedback.objects.values_list("pk", "ideal_caption"))
    kept = {
        number for number in roles if number in stored and said.get(number, stored[number]) == stored[number]
    }
    deleted = sum(role == _Role.TAUGHT for number, (role, _) in roles.items() if number not in kept)
    uses = [
        FeedbackUse(feedback_id=number, version=version, role=role, reason=reason)
        for number, (role, reason) in roles.items()
        if number in kept
    ]
    with transaction.atomic():
        # An earlier attempt may have come this far; and nobody asks any more what taught a version that is retired.
        old = Q(version=version) | Q(version=None) | Q(version__retired_at__isnull=False)
        FeedbackUse.objects.filter(old).delete()
        FeedbackUse.objects.bulk_create(uses, batch_size=1000)
        if deleted and version is not None:
            marked = {"deleted_rows": deleted, "rows_deleted_at": timezone.now()}
            ModelVersion.objects.filter(pk=version.pk).update(**marked)


def sentences_forget() -> int:
    """Take the sentences out of the versions that earlier releases published; returns how many versions held any.

    They keep their weights and ids, and rows by number and hash. Raises `RegistryError`.
    """
    changed = 0
    for version in ModelVersion.objects.filter(retired_at=None):
        facts = version.readable_facts
        if facts is None or SNAPSHOT_FILE not in {entry.name for entry in facts.files}:
            continue
        if version_file_rewrite(version, SNAPSHOT_FILE, partial(_sentences_take_out, version)):
            changed += 1
            logger.info("%s names what it learned from by number and hash now.", version)
    return changed


def _sentences_take_out(version: ModelVersion, content: bytes) -> bytes:
    """The rows of a snapshot by number and hash. Who said what is recorded first: once it is gone, nobody knows."""
    rows = {int(row["feedback"]): row for row in map(json.loads, content.decode().splitlines())}
    if not any("ideal" in row for row in rows.values()):
        return content
    corrections = {number: row for number, row in rows.items() if row.get("ideal")}
    uses_record(
        version,
        {
            number: (_Role.TAUGHT if row["split"] == "train" else _Role.TESTS, "")
            for number, row in corrections.items()
        },
        {number: row["ideal"] for number, row in corrections.items()},
    )
    named = [
        {
            "feedback": number,
            "sha256": hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest(),
            "split": row["split"],
        }
        for number, row in rows.items()
    ]
    return "".join(json.dumps(row) + "\n" for row in named).encode()
