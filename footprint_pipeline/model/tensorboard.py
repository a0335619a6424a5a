"""A training for TensorBoard: scalars and pictures as event files, written without TensorFlow.

`tensorboard`'s own writer opens its files through TensorFlow wherever that is installed; here they are plain files.
"""

import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]


class EventFile:
    """One event file, which TensorBoard may read while it grows."""

    def __init__(self, folder: Path) -> None:
        """Begin a file of its own in the folder, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 1000:020d}.{socket.gethostname()}.{os.getpid()}"
        self._writer = RecordWriter((folder / name).open("wb"))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Numbers of a step, by name."""
        self._put(step, [Summary.Value(tag=name, simple_value=value) for name, value in values.items()])

    def picture(self, step: int, name: str, png: bytes, *, size: tuple[int, int]) -> None:
        """A PNG of a step; its size is (height, width), pixels."""
        image = Summary.Image(height=size[0], width=size[1], colorspace=3, encoded_image_string=png)
        self._put(step, [Summary.Value(tag=name, image=image)])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def _put(self, step: int, values: list[Summary.Value]) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _write(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()
