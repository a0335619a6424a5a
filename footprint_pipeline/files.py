"""Writing files so that a crash leaves the old file or the new one, never half of one."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` (same suffix) that replaces it when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex[:8]}-{target.name}")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex[:8]}-{target.name}")
    temporary.mkdir()
    try:
        yield temporary
        try:
            temporary.replace(target)
        except OSError:  # a folder that is not empty is there, perhaps since a moment ago
            if not target.is_dir():
                raise
            former = target.with_name(f".{uuid.uuid4().hex[:8]}-former-{target.name}")
            target.replace(former)
            temporary.replace(target)
            shutil.rmtree(former)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
