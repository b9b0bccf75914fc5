"""WSGI entry point. The server's worker starts the engine, after the fork: see deploy/gunicorn.conf.py."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "captioner.settings")

application = get_wsgi_application()
