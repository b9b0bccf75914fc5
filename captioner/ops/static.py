"""Static files as they are served: compressed, and named after their content."""

import hashlib
from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command


def static_files_collect() -> None:
    """Collect the static files of all applications, unless that was done and none of them has changed since."""
    found = []
    for finder in get_finders():
        for name, storage in finder.list(()):
            facts = Path(storage.path(name)).stat()
            found.append((name, facts.st_size, facts.st_mtime_ns))
    fingerprint = hashlib.sha256(repr(sorted(found)).encode()).hexdigest()
    mark = Path(settings.STATIC_ROOT) / ".collected"
    if mark.is_file() and mark.read_text() == fingerprint:
        return
    call_command("collectstatic", interactive=False, verbosity=0)
    mark.write_text(fingerprint)
