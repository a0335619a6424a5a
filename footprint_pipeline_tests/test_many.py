import gc

import numpy as np
import pytest
import shapely

from footprint_pipeline.many import collector_paused, in_threads, listed, spread


@pytest.mark.parametrize("count", [0, 1, 8193, 30_000])
def test_work_in_threads_keeps_the_order(count: int) -> None:
    geometry = shapely.points(np.arange(count), 0)
    assert in_threads(shapely.get_x, geometry).tolist() == list(range(count))


def test_the_collector_is_left_as_it_was() -> None:
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), collector_paused():
        _ = 1 / 0
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("count", "most", "positions"),
    [(0, 3, []), (1, 3, [0]), (3, 3, [0, 1, 2]), (3, 9, [0, 1, 2]), (9, 3, [0, 4, 8]), (9, 1, [0])],
)
def test_a_few_of_many_are_spread_from_the_first_to_the_last(count: int, most: int, positions: list[int]) -> None:
    assert spread(count, most).tolist() == positions


def test_the_first_few_names_are_listed_and_how_many_more_there_are() -> None:
    assert [listed(range(count)) for count in (0, 1, 3, 4)] == ["", "0", "0, 1, 2", "0, 1, 2 and 1 more"]
    assert listed("abc", shown=1) == "a and 2 more"
