"""The broker made of files, whose every message is there whole or not at all.

Kombu's own writes in place and hands on whatever it reads: a message cut short, by a full disk or a kill, ended the
worker that found it.
"""

import logging
import os
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import filesystem
from kombu.utils.json import dumps, loads

from models_registry.files import file_write_atomically

logger = logging.getLogger(__name__)

# What reading a damaged message raises: it is no text, no JSON, or no message.
_DAMAGE = (ValueError, TypeError, LookupError, AttributeError)


class Channel(filesystem.Channel):  # type: ignore[misc]  # kombu has no types
    def _put(self, queue: str, payload: Any, **_: Any) -> None:
        """Raises `ChannelError` where it cannot be written."""
        name = f"{round(time.monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg"
        try:
            with file_write_atomically(Path(self.data_folder_out, name)) as draft:
                draft.write_text(dumps(payload))
        except OSError as error:
            raise ChannelError(f"{name} cannot be written: {error}") from error

    def _get(self, queue: str) -> Any:
        """The oldest message that can be read; others are put aside. Raises `Empty` where there is none."""
        folder = Path(self.data_folder_in)
        for name in sorted(path.name for path in folder.iterdir()):
            if name.partition(".")[2] != f"{queue}.msg":
                continue
            taken = folder / f"{name}.{os.getpid()}.taken"
            try:
                (folder / name).rename(taken)
            except FileNotFoundError:  # by another worker
                continue
            try:
                message = loads(taken.read_bytes().decode())
                self.Message(payload=message, channel=self)
            except _DAMAGE as error:
                logger.error(
                    "A message in the broker is damaged, and put aside as %s.damaged: %s", name, error
                )
                taken.rename(folder / f"{name}.damaged")
                continue
            taken.unlink()
            return message
        raise Empty

    def get_table(self, exchange: str) -> Any:
        """Which queues an exchange leads to; where the file is damaged, those that this process has bound itself."""
        try:
            return super().get_table(exchange)
        except _DAMAGE:
            bound = [binding for binding in self.state.bindings if binding.exchange == exchange]
            return [filesystem.exchange_queue_t(each.routing_key, "", each.queue) for each in bound]

    def _queue_bind(self, exchange: str, *binding: Any) -> None:
        try:
            super()._queue_bind(exchange, *binding)
        except _DAMAGE:
            self._exchange_file(exchange).unlink(missing_ok=True)
            super()._queue_bind(exchange, *binding)


class Transport(filesystem.Transport):  # type: ignore[misc]
    Channel = Channel
