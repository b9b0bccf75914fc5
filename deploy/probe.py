"""Exit with success when this container's web process answers a path with 200: `python deploy/probe.py /readyz`.

The image has no curl, and needs none for this.
"""

import os
import sys
import urllib.request

with urllib.request.urlopen(f"http://127.0.0.1:{os.environ.get('PORT', '8000')}{sys.argv[1]}", timeout=4):
    pass
