"""Log lines as JSON, one object a line, for whoever collects them. No Django: the web server uses this as well."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

# gunicorn's names of what it knows about a request, and ours.
_ACCESS = {
    "m": "method",
    "U": "path",
    "s": "status",
    "B": "bytes",
    "h": "address",
    "{x-request-id}o": "request_id",
}
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})


class OneLineFilter(logging.Filter):
    """Takes the traceback off a record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = record.exc_text = None
        return True


class JsonFormatter(logging.Formatter):
    """`time` (UTC), `level`, `logger`, `message`, and where there is one `request_id`, `task_id`, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        task_id, request_id = (getattr(record, name, "-") for name in ("task_id", "request_id"))
        if task_id != "-":
            line["task_id"] = task_id
        elif request_id != "-":
            line["request_id"] = request_id
        if record.name == "gunicorn.access" and isinstance(record.args, dict):
            line |= {name: record.args[atom] for atom, name in _ACCESS.items()}
            line["seconds"] = float(str(record.args["L"]))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class ProbeFilter(logging.Filter):
    """Drops the access lines of probes that were answered well: they come every few seconds and say nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        args = record.args
        return not (isinstance(args, dict) and args["U"] in _PROBES and str(args["s"]) == "200")


def gunicorn_logging() -> dict[str, Any]:
    """`logconfig_dict` of gunicorn: its own lines and one per request, as JSON."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "captioner.ops.logs.JsonFormatter"}},
        "filters": {"probes": {"()": "captioner.ops.logs.ProbeFilter"}},
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"level": "INFO", "handlers": ["console"]},
        "loggers": {
            "gunicorn.error": {"level": "INFO", "handlers": ["console"], "propagate": False},
            "gunicorn.access": {
                "level": "INFO",
                "handlers": ["console"],
                "filters": ["probes"],
                "propagate": False,
            },
        },
    }
