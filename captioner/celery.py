"""The Celery application; tasks live in the apps' `tasks.py`."""

import os
from pathlib import Path

from celery import Celery
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "captioner.settings")

app = Celery("captioner")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

# The file-based broker expects its folders to be there.
for _name, _folder in settings.CELERY_BROKER_TRANSPORT_OPTIONS.items():
    if "folder" in _name:
        Path(str(_folder)).mkdir(parents=True, exist_ok=True)
