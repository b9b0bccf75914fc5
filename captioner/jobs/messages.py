"""What the broker carries: where workers find photos to caption, and whether anything waits there still."""

import logging
from itertools import groupby

from celery import current_app
from django.db.models import QuerySet
from django.utils import timezone
from kombu.exceptions import ChannelError, OperationalError

from captioner.models import JobPhoto

logger = logging.getLogger(__name__)

# By its name, as messages carry it: the task imports the worker and the sweeps, and these send messages.
_TASK = "captioner.tasks.job_photos_caption_task"
# Photos of one message: enough to be worth it, few enough to spread a small job over workers.
_CHUNK = 16


def photos_enqueue(photos: QuerySet[JobPhoto]) -> int:
    """Tell workers of these photos; returns how many were told of. While the broker is away, the rest stays unsaid."""
    told = 0
    # What failed before is tried alone, for it may be what ended its worker.
    ordered = photos.order_by("job", "attempts", "index").values_list("job", "attempts", "index")
    for (job_id, attempts), group in groupby(ordered, key=lambda row: (row[0], min(row[1], 1))):
        indexes = [index for _, _, index in group]
        size = 1 if attempts else _CHUNK
        for start in range(0, len(indexes), size):
            chunk = indexes[start : start + size]
            rows = JobPhoto.objects.pending().filter(job=job_id, index__in=chunk)
            # Before the message is out, for a worker may be faster than this process.
            rows.update(enqueued_at=timezone.now(), leased_until=None)
            try:
                current_app.send_task(_TASK, (str(job_id), chunk), retry=False)
            except (OperationalError, ChannelError, OSError) as error:
                logger.error("The broker cannot be reached; job %s waits for it: %s", job_id, error)
                rows.update(enqueued_at=None)
                return told
            told += len(chunk)
    return told


def queue_is_empty() -> bool:
    """Whether no message waits in the broker; false where it cannot be asked."""
    with current_app.connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=1, timeout=2)
            queue = connection.default_channel.queue_declare(
                current_app.conf.task_default_queue, passive=True
            )
        except ChannelError:  # a queue that nothing is in may not exist
            return True
        except (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors):
            return False
        return bool(queue.message_count == 0)
