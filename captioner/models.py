"""The interaction log: what was captioned, for whom, by which model, and what the person thought of it."""

import re
import string
import unicodedata
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Self, TypeVar

from django.conf import settings
from django.contrib.auth.models import User
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Count, F, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce
from django.db.models.signals import pre_delete
from django.dispatch import receiver
from django.utils import timezone

from captioner.captions.text import caption_words, is_unspaced
from models_registry.models import ModelVersion

OwnedT = TypeVar("OwnedT", bound="Owned")

IDEAL_CAPTION_MAX_LENGTH = 1500  # characters; descriptions for people who cannot see a photo take as many
END_USER_MAX_LENGTH = 128
FILE_NAME_MAX_LENGTH = 255
JOB_NAME_MAX_LENGTH = 100
UNSURE_BELOW = 0.5  # probability of a word


class ApiKey(models.Model):
    """A secret a program signs in with, acting for `user`. Only its SHA-256 digest is stored."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100, help_text="What uses this key, so that you know it again.")
    prefix = models.CharField(max_length=8, editable=False, help_text="The first characters of the key.")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who a caption belongs to: exactly one of a signed-in user, an API key or an anonymous visitor.

    A key may name for whom it asked. What was made for them is the key's all the same.
    """

    user: User | None = None
    api_key: ApiKey | None = None
    visitor: uuid.UUID | None = None
    end_user: str = ""

    def __post_init__(self) -> None:
        if sum(part is not None for part in (self.user, self.api_key, self.visitor)) != 1:
            raise ValueError("An owner is exactly one of user, api_key, visitor.")
        if self.end_user and self.api_key is None:
            raise ValueError("Only an API key has end users.")


class Photo(models.Model):
    """One uploaded photo, stored once however often it is uploaded, re-encoded and without metadata."""

    sha256 = models.CharField(max_length=64, unique=True, help_text="Of the bytes as they were uploaded.")
    file = models.FileField()
    width = models.PositiveIntegerField(help_text="Upright, in pixels, before any downscaling.")
    height = models.PositiveIntegerField(help_text="Upright, in pixels, before any downscaling.")
    difference_hash = models.CharField(
        max_length=16,
        blank=True,
        help_text="64 bits in hex that differ little between photos that show the same; empty until computed.",
    )
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    def __str__(self) -> str:
        return f"photo {self.sha256[:12]}"


class PhotoVector(models.Model):
    """What an encoder saw of a photo, as a vector: photos that look alike have vectors that point the same way."""

    photo = models.ForeignKey(Photo, on_delete=models.CASCADE, related_name="vectors")
    encoder = models.CharField(
        max_length=16, help_text="Names the encoder's weights; see `Embedder.encoder`."
    )
    vector = models.BinaryField(
        help_text="Unit length, float16, little-endian; empty where the photo cannot be read any more."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["photo", "encoder"], name="photo_vector_once")]

    def __str__(self) -> str:
        return f"{self.photo} as {self.encoder} saw it"


@models.CharField.register_lookup
@models.TextField.register_lookup
class HasWords(models.Lookup):
    """`__has_words="big dog"`: the text has these words, as `captioner.captions.text.has_words` tells it."""

    lookup_name = "has_words"

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        text, text_params = self.process_lhs(compiler, connection)
        wanted, wanted_params = self.process_rhs(compiler, connection)
        return f"has_words({text}, {wanted})", (*text_params, *wanted_params)

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        text, params = self.process_lhs(compiler, connection)
        wanted = unicodedata.normalize("NFC", str(self.rhs))
        if is_unspaced(caption_words(wanted)):
            words = ["".join(wanted.split())]
            patterns = [re.escape(words[0])]
        else:
            words = [word for each in wanted.split() if (word := each.strip(string.punctuation))]
            patterns = [rf"(^|[^\w]){re.escape(word)}($|[^\w])" for word in words]
        if not patterns:
            return "FALSE", ()
        # The first comparison is the cheap one, and spares most rows the second.
        condition = " AND ".join(f"({text} ILIKE %s AND {text} ~* %s)" for _ in patterns)
        parts = [f"%{connection.ops.prep_for_like_query(word)}%" for word in words]
        pairs = zip(parts, patterns, strict=True)
        return f"({condition})", tuple(
            each for part, pattern in pairs for each in (*params, part, *params, pattern)
        )


class Owned(models.Model):
    """What somebody made: a signed-in user, an API key in the name of its user, or an anonymous visitor."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="%(class)ss"
    )
    api_key = models.ForeignKey(
        ApiKey,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="%(class)ss",
        help_text="The key it was made with; `user` is then the key's user.",
    )
    # The database has a default too, for the release before.
    end_user = models.CharField(
        max_length=END_USER_MAX_LENGTH,
        blank=True,
        default="",
        db_default="",
        help_text="For whom the key asked, as its program calls them.",
    )
    visitor = models.UUIDField(null=True, blank=True, help_text="The anonymous visitor's cookie.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        abstract = True
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                name="%(class)s_user_or_visitor",
                condition=Q(user__isnull=False, visitor__isnull=True)
                | Q(user__isnull=True, visitor__isnull=False, api_key__isnull=True),
            ),
        ]

    @property
    def owner(self) -> Owner:
        if self.api_key is not None:
            return Owner(api_key=self.api_key, end_user=self.end_user)
        return Owner(user=self.user, visitor=self.visitor)


class OwnedQuerySet(models.QuerySet[OwnedT]):
    def owned_by(self, owner: Owner) -> Self:
        """What this person may see. A key sees what it made; its user sees that as well."""
        if owner.api_key is not None:
            return self.filter(api_key=owner.api_key)
        if owner.user is not None:
            return self.filter(user=owner.user)
        return self.filter(visitor=owner.visitor)

    def older_than(self, created_at: datetime, pk: uuid.UUID) -> Self:
        """Those after this place in the newest-first order; the index finds it at any depth."""
        return self.filter(Q(created_at__lt=created_at) | Q(pk__lt=pk), created_at__lte=created_at)

    def newer_than(self, created_at: datetime, pk: uuid.UUID) -> Self:
        """Those before this place in the newest-first order."""
        return self.filter(Q(created_at__gt=created_at) | Q(pk__gt=pk), created_at__gte=created_at)


class CaptionQuerySet(OwnedQuerySet["Caption"]):
    def with_details(self) -> "CaptionQuerySet":
        return self.select_related("photo", "feedback", "recalled")

    def owned_by(self, owner: Owner) -> Self:
        """As for all that is owned, without what they have deleted and might still take back."""
        return super().owned_by(owner).filter(deleted_at=None)

    def discarded_by(self, owner: Owner) -> Self:
        """What they have deleted and might still take back."""
        return super().owned_by(owner).exclude(deleted_at=None)

    def not_looked_at(self) -> "CaptionQuerySet":
        """Those that their owner has neither gone through nor said anything about."""
        return self.filter(looked_at=None, feedback=None)

    def corrected(self) -> "CaptionQuerySet":
        """Those that their owner put into words of their own."""
        return self.exclude(feedback=None).exclude(feedback__ideal_caption="", feedback__wording="")

    def doubtful(self) -> "CaptionQuerySet":
        """Those that stand as the model wrote them, with a word it was not sure of."""
        said = Q(feedback=None) | Q(feedback__ideal_caption="", feedback__wording="")
        return self.filter(said, origin=Caption.Origin.MODEL, least_probability__lt=UNSURE_BELOW)

    def approved(self) -> "CaptionQuerySet":
        """Those whose feedback a reviewer approved."""
        return self.filter(feedback__status=Feedback.Status.APPROVED)

    def search(self, text: str) -> "CaptionQuerySet":
        """Those whose `final_text` has all words of `text`, in any letter case and Unicode form."""
        as_answered = Q(feedback=None) | Q(feedback__ideal_caption="", feedback__wording="")
        own = Q(feedback__ideal_caption__has_words=text) | Q(feedback__wording__has_words=text)
        is_remembered = Q(recalled__status=Feedback.Status.APPROVED)
        remembered = is_remembered & Q(recalled__ideal_caption__has_words=text)
        machine = (Q(recalled=None) | ~is_remembered) & Q(text__has_words=text)
        return self.filter(own | (as_answered & (remembered | machine)))


class Caption(Owned):
    """One logged interaction: a photo, what the model answered, and how it came to that answer."""

    class Source(models.TextChoices):
        WEB = "web", "Web page"
        API = "api", "REST API"
        BATCH = "batch", "Batch job"

    class Origin(models.TextChoices):
        MODEL = "model", "The model"
        MEMORY = "memory", "An approved caption of the same photo"

    photo = models.ForeignKey(Photo, on_delete=models.PROTECT, related_name="captions")
    # The database has defaults too, for the release before.
    file_name = models.CharField(
        max_length=FILE_NAME_MAX_LENGTH,
        blank=True,
        default="",
        db_default="",
        help_text="What its sender called the photo; never a path of ours.",
    )
    is_decorative = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Its owner says that the photo tells nothing and takes an empty alt text.",
    )
    looked_at = models.DateTimeField(
        null=True, blank=True, help_text="When its owner first went through it, on its page or the worksheet."
    )
    deleted_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="Since when its owner does not see it any more; soon it is gone for good.",
    )
    source = models.CharField(max_length=8, choices=Source)

    origin = models.CharField(
        max_length=8,
        choices=Origin,
        default=Origin.MODEL,
        db_default=Origin.MODEL,
        help_text="What the answer came from; stays when the remembered caption is deleted.",
    )
    # A reference and no copy: what is deleted is gone here as well.
    recalled = models.ForeignKey(
        "Feedback",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="recalled_by",
        help_text="The remembered caption that was the answer.",
    )
    text = models.TextField(help_text="What the model wrote, whatever the answer was.")
    beam_rank = models.PositiveSmallIntegerField(
        default=0,
        db_default=0,
        help_text="Of the model's captions by its own order, from 0; above 0 where photos like this spoke for another.",
    )
    confidence = models.FloatField(
        null=True, blank=True, help_text="Calibrated, 0 to 1; empty where there is none."
    )
    words = models.JSONField(default=list, help_text='[{"text": str, "probability": float}, ...]')
    least_probability = models.FloatField(
        null=True, blank=True, help_text="Of the word the model doubted most; empty where it was not kept."
    )
    alternatives = models.JSONField(
        default=list, help_text='[{"caption": str, "confidence": float | null}, ...]'
    )
    token_log_probabilities = models.JSONField(default=list, help_text="Natural logarithms, one per token.")
    model_name = models.CharField(max_length=100)
    model_version = models.CharField(max_length=100)
    decoding = models.JSONField(default=dict, help_text="The decoding parameters that were used.")
    timings_ms = models.JSONField(
        default=dict,
        help_text="Milliseconds spent per step, to be shown; of inference, those of the whole batch.",
    )
    inference_ms = models.FloatField(null=True, blank=True, help_text="Milliseconds of the whole batch.")
    batch_size = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Photos that were captioned at once, this one included."
    )

    objects = CaptionQuerySet.as_manager()

    class Meta(Owned.Meta):
        # Each person's history is read newest first, a page at a time: one index per kind of owner does it.
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="caption_newest"),
            models.Index(fields=["user", "-created_at", "-id"], name="caption_user_newest"),
            models.Index(fields=["api_key", "-created_at", "-id"], name="caption_api_key_newest"),
            models.Index(
                fields=["api_key", "end_user", "-created_at", "-id"],
                condition=~Q(end_user=""),
                name="caption_end_user_newest",
            ),
            models.Index(fields=["visitor", "-created_at", "-id"], name="caption_visitor_newest"),
            models.Index(fields=["model_version", "-created_at"], name="caption_version_newest"),
            models.Index(
                fields=["deleted_at"], condition=Q(deleted_at__isnull=False), name="caption_to_be_removed"
            ),
        ]

    def __str__(self) -> str:
        # The admin's log keeps this for ever: no sentence that somebody may want to have deleted.
        return f"caption {self.pk}"

    @property
    def is_remembered(self) -> bool:
        """Whether the answer was an approved caption of the same photo, which still is one."""
        return self.recalled is not None and self.recalled.status == Feedback.Status.APPROVED

    @property
    def answer_text(self) -> str:
        """What the person was answered: the remembered caption where there is one, else what the model wrote."""
        return self.recalled.ideal_caption if self.recalled is not None and self.is_remembered else self.text

    @property
    def own_text(self) -> str:
        """What its owner made of the caption; empty where they left it as it was."""
        feedback = getattr(self, "feedback", None)
        return feedback.own_text if feedback is not None else ""

    @property
    def final_text(self) -> str:
        """The caption, wherever it is shown or taken away: its owner's own, else what they were answered."""
        return self.own_text or self.answer_text

    @property
    def alt_text(self) -> str:
        """What stands for the photo on a page: the caption, and nothing for a decoration."""
        return "" if self.is_decorative else self.final_text

    @property
    def final_source(self) -> str:
        """Who `final_text` is by: "person", "memory" or "model". Words and confidence are the model's alone."""
        if self.own_text:
            return "person"
        return str(Caption.Origin.MEMORY if self.is_remembered else Caption.Origin.MODEL)


class FeedbackQuerySet(models.QuerySet["Feedback"]):
    def pending(self) -> "FeedbackQuerySet":
        """The review queue: what people were least content with first, and the newest of that."""
        return self.filter(status=Feedback.Status.PENDING).order_by("-priority", "-updated_at", "-id")

    def remembered(self) -> "FeedbackQuerySet":
        """Approved corrections: what the memory may answer with."""
        return self.filter(status=Feedback.Status.APPROVED).exclude(ideal_caption="")

    def after(self, feedback: "Feedback") -> "FeedbackQuerySet":
        """Those that come later than `feedback` in the queue."""
        moment = feedback.updated_at
        same = Q(updated_at__lt=moment) | Q(updated_at=moment, pk__lt=feedback.pk)
        return self.filter(
            Q(priority__lt=feedback.priority) | (Q(priority=feedback.priority) & same),
            priority__lte=feedback.priority,
        )


class Feedback(models.Model):
    """What the person who asked for a caption thought of it. Only approved feedback ever trains a model."""

    class Status(models.TextChoices):
        PENDING = "pending", "Pending"
        APPROVED = "approved", "Approved"
        REJECTED = "rejected", "Rejected"

    class Rejection(models.TextChoices):
        WRONG = "wrong", "It does not say what the photo shows"
        WORSE = "worse", "It says less than the caption that was there"
        LANGUAGE = "language", "It cannot be understood"
        PRIVATE = "private", "It says things of people that do not belong here"
        DUPLICATE = "duplicate", "The same was said before"

    caption = models.OneToOneField(Caption, on_delete=models.CASCADE, related_name="feedback")
    rating = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(10)],
        help_text="1 (worst) to 10.",
    )
    ideal_caption = models.CharField(
        max_length=IDEAL_CAPTION_MAX_LENGTH, blank=True, help_text="What the caption should have been."
    )
    wording = models.CharField(
        max_length=IDEAL_CAPTION_MAX_LENGTH,
        blank=True,
        default="",
        db_default="",
        help_text="The caption in its owner's spelling, where only case, marks or spaces differ; it teaches nothing.",
    )
    status = models.CharField(max_length=8, choices=Status, default=Status.PENDING)
    reviewed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    reviewed_at = models.DateTimeField(null=True, blank=True)
    # The database has a default too, for the release before.
    rejection = models.CharField(
        max_length=12,
        choices=Rejection,
        blank=True,
        default="",
        db_default="",
        help_text="Why a reviewer did not approve it.",
    )
    proposed = models.TextField(  # noqa: DJ001  none and nothing differ: a rating has no caption to edit
        null=True, blank=True, help_text="What its author wrote, where a reviewer edited it; may be nothing."
    )
    disagrees_with = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="What somebody else wrote of the same photo, which is why this was to be reviewed again.",
    )
    # The database has defaults too, for the release before.
    priority = models.FloatField(
        default=0.0,
        db_default=0.0,
        help_text="Higher is reviewed first: how far the rating is below what this person usually gives.",
    )
    now_says = models.TextField(
        blank=True, default="", db_default="", help_text="What a later version said of the photo, when asked."
    )
    now_says_version = models.CharField(max_length=100, blank=True, default="", db_default="")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = FeedbackQuerySet.as_manager()

    class Meta:
        ordering = ["-updated_at", "-id"]
        verbose_name_plural = "feedback"
        permissions = [("review_feedback", "Can review feedback, and see the photos it is about")]
        constraints = [
            models.CheckConstraint(
                name="feedback_says_something", condition=Q(rating__isnull=False) | ~Q(ideal_caption="")
            ),
            models.CheckConstraint(
                name="feedback_rating_1_to_10", condition=Q(rating__isnull=True) | Q(rating__range=(1, 10))
            ),
        ]
        indexes = [
            models.Index(fields=["status", "-priority", "-updated_at", "-id"], name="feedback_review_queue"),
            # A reviewer's own decisions, the latest first: how many there were today, and which one is taken back.
            models.Index(fields=["reviewed_by", "-reviewed_at"], name="feedback_by_reviewer"),
            # What each process looks for every second: corrections that were approved just now.
            models.Index(
                fields=["reviewed_at"],
                condition=Q(status="approved") & ~Q(ideal_caption=""),
                name="feedback_remembered",
            ),
        ]

    def __str__(self) -> str:
        # The admin's log keeps this for ever: no sentence that somebody may want to have deleted.
        return f"feedback {self.pk}"

    @property
    def own_text(self) -> str:
        """The caption as this person wants it; empty where they only rated it."""
        return self.ideal_caption or self.wording

    def forget(self) -> None:
        """Mark the versions that it taught: what it said is deleted or replaced, and still in their weights."""
        taught = self.uses.filter(role=FeedbackUse.Role.TAUGHT).values("version")
        ModelVersion.objects.filter(pk__in=taught).update(
            deleted_rows=F("deleted_rows") + 1, rows_deleted_at=timezone.now()
        )


@receiver(pre_delete, sender=Feedback)
def feedback_deleted(instance: Feedback, **_: object) -> None:
    """However it is deleted: by itself, or with its caption, its author or a key.

    Locked first: a copy of its photo that is being answered with it comes either before, and lets go of it, or after.
    """
    Feedback.objects.select_for_update().filter(pk=instance.pk).first()
    instance.forget()


class FeedbackUse(models.Model):
    """What one version made of a piece of approved feedback; without a version the last run, which learned nothing."""

    class Role(models.TextChoices):
        TAUGHT = "taught", "Taught it"
        CHOSE = "chose", "Chose how much of what was learned it keeps, and did not teach"
        TESTS = "tests", "Tests it and never trains"
        LEFT_OUT = "left_out", "Left out"

    feedback = models.ForeignKey(Feedback, on_delete=models.CASCADE, related_name="uses")
    version = models.ForeignKey(
        ModelVersion, null=True, blank=True, on_delete=models.CASCADE, related_name="feedback_uses"
    )
    role = models.CharField(max_length=8, choices=Role)
    reason = models.CharField(max_length=32, blank=True, help_text="Why it was left out, as a code.")

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(fields=["version", "feedback"], name="feedback_used_once"),
            models.UniqueConstraint(
                fields=["feedback"], condition=Q(version=None), name="feedback_unlearned_once"
            ),
        ]

    def __str__(self) -> str:
        return f"feedback {self.feedback_id} in {self.version_id or 'the last run'}"


class Preference(models.Model):
    """Which of two captions of a photo somebody preferred; both are what versions said by themselves."""

    class Kind(models.TextChoices):
        PICK = "pick", "An alternative was taken instead of the caption"
        VOTE = "vote", "A blind vote of a reviewer"

    kind = models.CharField(max_length=4, choices=Kind)
    photo = models.ForeignKey(Photo, on_delete=models.CASCADE, related_name="preferences")
    feedback = models.OneToOneField(
        Feedback, null=True, blank=True, on_delete=models.CASCADE, related_name="pick"
    )
    voter = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    training_run = models.PositiveBigIntegerField(
        null=True, blank=True, db_index=True, help_text="The number of the run whose candidate was voted on."
    )
    preferred = models.TextField()
    other = models.TextField()
    preferred_version = models.CharField(max_length=100)
    other_version = models.CharField(max_length=100)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(fields=["training_run", "photo", "voter"], name="preference_one_vote"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"


class ChallengerTrial(models.Model):
    """What a challenger made of a photo that the champion answered: its caption, or how it failed."""

    class Kind(models.TextChoices):
        CANARY = "canary", "It was to answer, and failed"
        SHADOW = "shadow", "It captioned along, unseen"

    caption = models.ForeignKey(
        Caption, on_delete=models.CASCADE, related_name="trials", help_text="What the person was answered."
    )
    kind = models.CharField(max_length=6, choices=Kind)
    model_version = models.CharField(max_length=100)
    text = models.TextField(blank=True)
    error = models.TextField(blank=True)
    inference_ms = models.FloatField(null=True, blank=True, help_text="Milliseconds of the whole batch.")
    batch_size = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Photos that were captioned at once, this one included."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                name="trial_ends_one_way",
                condition=(Q(text="") & ~Q(error="")) | (~Q(text="") & Q(error="")),
            ),
        ]
        indexes = [models.Index(fields=["model_version", "-created_at"], name="trial_version_newest")]

    def __str__(self) -> str:
        return f"trial {self.pk}"


class JobQuerySet(OwnedQuerySet["Job"]):
    def with_progress(self) -> "JobQuerySet":
        """With `captioned`, `failed`, `cancelled` and `pending`: how many of its photos are.

        Subqueries count for the jobs of one page only, where a join would count for all of them first.
        """
        counts = {}
        for state in JobPhoto.State:
            photos = JobPhoto.objects.filter(job=OuterRef("pk"), state=state).order_by().values("job")
            counts[state.value] = Coalesce(Subquery(photos.annotate(count=Count("pk")).values("count")), 0)
        return self.annotate(**counts)


class Job(Owned):
    """Many photos sent at once, captioned in the background by whichever workers are free."""

    class Status(models.TextChoices):
        RECEIVING = "receiving", "Being received"
        QUEUED = "queued", "Waiting for a worker"
        RUNNING = "running", "Running"
        FINISHED = "finished", "Finished"
        CANCELLED = "cancelled", "Cancelled"

    status = models.CharField(max_length=9, choices=Status, default=Status.RECEIVING)
    photo_count = models.PositiveIntegerField()
    options = models.JSONField(default=dict, help_text="The decoding parameters that were asked for.")
    finished_at = models.DateTimeField(null=True, blank=True)
    # The database has defaults too, for the release before.
    size = models.BigIntegerField(
        default=0, db_default=0, help_text="Bytes of its photos, as they were sent."
    )
    caller = models.CharField(
        max_length=64,
        blank=True,
        default="",
        db_default="",
        help_text="Among whose waiting jobs it counts; empty once it is over.",
    )
    name = models.CharField(
        max_length=JOB_NAME_MAX_LENGTH,
        blank=True,
        default="",
        db_default="",
        help_text="As its owner calls it; empty where they gave it no name.",
    )

    objects = JobQuerySet.as_manager()

    class Meta(Owned.Meta):
        indexes = [
            models.Index(fields=["user", "-created_at", "-id"], name="job_user_newest"),
            models.Index(fields=["visitor", "-created_at", "-id"], name="job_visitor_newest"),
            models.Index(fields=["caller"], condition=~Q(caller=""), name="job_waiting"),
        ]

    def __str__(self) -> str:
        return f"job {str(self.pk)[:8]} of {self.photo_count} photos"

    @property
    def title(self) -> str:
        return self.name or f"{self.photo_count:,} photo{'' if self.photo_count == 1 else 's'}"

    @property
    def is_over(self) -> bool:
        return self.status in {Job.Status.FINISHED, Job.Status.CANCELLED}


class JobPhotoQuerySet(models.QuerySet["JobPhoto"]):
    def pending(self) -> "JobPhotoQuerySet":
        return self.filter(state=JobPhoto.State.PENDING)

    def claimable(self, now: datetime) -> "JobPhotoQuerySet":
        """Those to be captioned that no worker is busy with."""
        return self.pending().filter(Q(leased_until__isnull=True) | Q(leased_until__lt=now))


class JobPhoto(models.Model):
    """One photo of a job: what is known of it, and how far it got. The workers' only memory."""

    class State(models.TextChoices):
        PENDING = "pending", "Pending"
        CAPTIONED = "captioned", "Captioned"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="photos")
    index = models.PositiveIntegerField(help_text="Its place in what was sent, from 0.")
    name = models.CharField(
        max_length=FILE_NAME_MAX_LENGTH, help_text="As its sender called it; never a path of ours."
    )
    state = models.CharField(max_length=9, choices=State, default=State.PENDING)
    caption = models.OneToOneField(
        Caption, null=True, blank=True, on_delete=models.SET_NULL, related_name="job_photo"
    )
    reason = models.CharField(max_length=32, blank=True, help_text="Why it failed, as a code.")
    error = models.TextField(blank=True, help_text="Why it failed, in words.")
    input = models.CharField(
        max_length=100, blank=True, help_text="Its bytes in the storage, until it is done."
    )
    attempts = models.PositiveSmallIntegerField(default=0)
    enqueued_at = models.DateTimeField(null=True, blank=True, help_text="Since when a task for it is queued.")
    leased_until = models.DateTimeField(null=True, blank=True, help_text="Until when a worker has it.")

    objects = JobPhotoQuerySet.as_manager()

    class Meta:
        ordering = ["job", "index"]
        constraints = [models.UniqueConstraint(fields=["job", "index"], name="job_photo_once")]
        indexes = [
            models.Index(fields=["job", "state"], name="job_photo_state"),
            # What the sweep looks through: few rows, however many jobs are done.
            models.Index(fields=["state", "enqueued_at"], condition=~Q(input=""), name="job_photo_open"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.state})"


class IdempotentRequest(models.Model):
    """A request that its sender may repeat: what it made, once it did. Deleted with what it made."""

    owner = models.CharField(max_length=64)
    key = models.CharField(max_length=255, help_text="The `Idempotency-Key`.")
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 of what was sent.")
    caption = models.ForeignKey(Caption, null=True, on_delete=models.CASCADE, related_name="+")
    job = models.ForeignKey(Job, null=True, on_delete=models.CASCADE, related_name="+")
    started_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "key"], name="idempotent_request_once")]

    def __str__(self) -> str:
        return self.key


class ModelImport(models.Model):
    """A model somebody wants to be fetched, checked, tried and published: how far that is, and what came of it."""

    class Status(models.TextChoices):
        QUEUED = "queued", "Queued"
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    UNFINISHED: ClassVar[tuple[str, ...]] = (Status.QUEUED, Status.RUNNING)

    source = models.CharField(max_length=200, help_text="An id on the hub, as in owner/name.")
    revision = models.CharField(
        max_length=100, blank=True, help_text="A commit, tag or branch; empty: the newest."
    )
    licence = models.CharField(
        max_length=200, default="see the model card", help_text="What the weights may be used for."
    )
    promote = models.BooleanField(default=True, help_text="Whether it serves once it was tried.")
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    status = models.CharField(max_length=8, choices=Status, default=Status.QUEUED)
    stage = models.CharField(max_length=20, blank=True, help_text="What is being done.")
    done = models.PositiveBigIntegerField(default=0, help_text="Bytes that are here.")
    total = models.PositiveBigIntegerField(default=0, help_text="Bytes of all files.")
    attempts = models.PositiveSmallIntegerField(default=0)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True, help_text="What ended the last attempt.")
    version = models.ForeignKey(
        ModelVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="imports"
    )
    caption = models.TextField(blank=True, help_text="What it said of a drawing.")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["source", "revision"],
                condition=Q(status__in=["queued", "running"]),
                name="model_import_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.source}@{self.revision}" if self.revision else self.source

    @property
    def told(self) -> str:
        """How far it is, for people."""
        if self.status != self.Status.RUNNING or not self.stage:
            return self.get_status_display().lower()
        if self.stage == "fetching" and self.total:
            return f"fetching, {self.done / 1e9:.1f} of {self.total / 1e9:.1f} GB"
        return self.stage
