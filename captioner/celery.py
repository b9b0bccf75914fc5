"""The Celery application; tasks live in the apps' `tasks.py`."""

import logging.config
import os
import warnings
from typing import Any

from celery import Celery, signals
from django.conf import settings
from kombu.transport import TRANSPORT_ALIASES

from captioner.http.middleware import request_id
from captioner.ops import metrics
from captioner.ops.heap import heap_share
from captioner.ops.storage import data_dir_ensure

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "captioner.settings")

# Ours writes and reads each message whole. By its name, for URLs of brokers cannot name a module.
TRANSPORT_ALIASES["filesystem"] = "captioner.jobs.broker:Transport"

app = Celery("captioner")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.celeryd_init.connect
@signals.beat_init.connect
def _data_dir_ensure(**_: Any) -> None:
    data_dir_ensure()


@signals.celeryd_init.connect
def _superuser_is_usual(**_: Any) -> None:
    """In a container or on a machine of its own it is, and nothing is unpickled here. Celery warns of it next."""
    warnings.filterwarnings("ignore", r"\s*You're running the worker with superuser")


@signals.setup_logging.connect
def _logging_as_django(**_: Any) -> None:
    """Celery brings its own format and handlers unless somebody says that logging is taken care of."""
    logging.config.dictConfig(settings.LOGGING)


@signals.task_prerun.connect
def _task_begin(task_id: str, **_: Any) -> None:
    request_id.task_begin(task_id)


@signals.worker_process_init.connect
def _process_as_in_web_workers(**_: Any) -> None:
    """See deploy/gunicorn.conf.py. The variables are read when torch and Prometheus' library are imported, later."""
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(settings.METRICS_DIR)
    heap_share()
    metrics.process_begin()


@signals.worker_process_shutdown.connect
def _process_end(pid: int, **_: Any) -> None:
    """A worker's process has an engine of its own once it had photos to caption; its thread would not let it end."""
    from captioner.serving.process import serving  # which needs Django, set up by then

    serving.drain(timeout=5)
    metrics.process_ended(pid)
