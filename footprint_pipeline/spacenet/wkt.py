"""Well-known text of many polygons → shapely geometries: what shapely makes of it, faster.

What a label may be, and which text is wrong, is the business of `labels`.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import shapely

from footprint_pipeline.many import collector_paused

_AT_ONCE = 8192
_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_ROUND_THE_RING = "POLYGON Z()"


def polygons_from_wkt(texts: pd.Series) -> np.ndarray:
    """Geometries without Z, to the bit those of `force_2d(from_wkt(texts, on_invalid="ignore"))` of shapely.

    Args:
        texts: str, shape (N,).

    Returns:
        Geometries, shape (N,); None where a text is none.
    """
    stored = pa.array(texts, pa.large_string())
    if isinstance(stored, pa.ChunkedArray):
        stored = stored.combine_chunks()
    with collector_paused(), ThreadPoolExecutor() as pool:
        parts = list(pool.map(lambda at: _read(stored[at : at + _AT_ONCE]), range(0, len(stored), _AT_ONCE)))
    return np.concatenate([np.zeros(0, object), *parts])


def _read(texts: pa.Array) -> np.ndarray:
    """Polygons of one ring, which most labels are, become numbers in Arrow; GEOS reads every other text."""
    geometry = np.full(len(texts), None, object)
    rest = np.ones(len(texts), bool)
    for names in ("xyz", "xy"):
        plain, points, ends = _rings(texts, names)
        each = np.arange(len(ends))
        geometry[plain] = shapely.from_ragged_array(shapely.GeometryType.POLYGON, points, (ends, each))
        rest[plain] = False
    others = texts.filter(pa.array(rest)).to_numpy(zero_copy_only=False)
    with np.errstate(all="ignore"):  # a coordinate that is NaN or infinite: `labels` tells of it
        geometry[rest] = shapely.force_2d(shapely.from_wkt(others, on_invalid="ignore"))
    return geometry


def _rings(texts: pa.Array, names: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The texts that are plainly a polygon of one closed ring.

    Args:
        texts: large_string, shape (N,).
        names: "xyz" or "xy", the ordinates of a point.

    Returns:
        Which they are, int, shape (M,); their points without Z, float64, shape (P, 2); and where among these each
        ring begins and ends, int, shape (M + 1,).
    """
    point = " ".join([_NUMBER] * len(names))
    name = "POLYGON (?:Z )?" if "z" in names else "POLYGON "
    whole = pc.match_substring_regex(texts, rf"^{name}\(\({point}(?:, ?{point}){{3,}}\)\)$")
    plain = np.flatnonzero(whole.fill_null(False))
    if not len(plain):
        return plain, np.zeros((0, 2)), np.zeros(1, int)
    rings = pc.ascii_trim(texts.take(pa.array(plain)), _ROUND_THE_RING).cast(pa.string())
    joined = pc.binary_join(pa.ListArray.from_arrays([0, len(rings)], rings), ";")[0].as_buffer()
    lines = joined.to_pybytes().replace(b", ", b",")
    mark = np.frombuffer(lines, np.uint8)
    breaks = np.flatnonzero((mark == ord(",")) | (mark == ord(";")))
    ends = np.concatenate([[0], np.flatnonzero(mark[breaks] == ord(";")) + 1, [len(breaks) + 1]])
    table = pyarrow.csv.read_csv(
        pa.BufferReader(lines.translate(bytes.maketrans(b",;", b"\n\n"))),
        read_options=pyarrow.csv.ReadOptions(column_names=list(names), use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(delimiter=" ", quote_char=False),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=["x", "y"], column_types=dict.fromkeys(names, pa.float64())
        ),
    )
    points = np.column_stack([table["x"], table["y"]])
    closed = (points[ends[:-1]] == points[ends[1:] - 1]).all(axis=1)
    if not closed.all():
        long = np.diff(ends)
        return plain[closed], points[np.repeat(closed, long)], np.concatenate([[0], np.cumsum(long[closed])])
    return plain, points, ends
