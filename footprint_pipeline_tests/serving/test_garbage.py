import gc
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from serving import garbage

CONFIGURATION = Path(__file__).parents[2] / "serving" / "gunicorn.conf.py"


class Node:
    """May refer to itself."""

    itself: "Node"


def nodes() -> int:
    """How many a collection looks at."""
    return sum(isinstance(each, Node) for each in gc.get_objects())


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.callbacks[:] = [each for each in gc.callbacks if each is not garbage._spare]
    gc.unfreeze()


def test_what_a_full_collection_has_kept_is_not_looked_at_again() -> None:
    kept = [Node() for _ in range(100)]
    garbage.spare_what_stays()
    assert nodes() == 0
    kept += [Node() for _ in range(50)]
    gc.collect(1)
    assert nodes() == 50
    gc.collect()
    assert nodes() == 0
    assert len(kept) == 150


def test_what_is_new_is_collected_as_ever() -> None:
    garbage.spare_what_stays()
    node = Node()
    node.itself = node
    del node
    assert nodes() == 1
    gc.collect()
    gc.unfreeze()
    assert nodes() == 0


def test_every_worker_of_the_service_does_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENBLAS_NUM_THREADS", "GDAL_CACHEMAX"):  # which the configuration sets where they are not
        monkeypatch.setenv(name, "1")
    configuration = runpy.run_path(str(CONFIGURATION))
    worker = SimpleNamespace(wsgi=SimpleNamespace(extensions={"model_store": SimpleNamespace(await_cached=float)}))
    configuration["post_worker_init"](worker)
    garbage.spare_what_stays()
    assert gc.callbacks.count(garbage._spare) == 1
