import gzip
import io
import tarfile
from pathlib import Path

import pytest

from footprint_pipeline.errors import SourceError
from footprint_pipeline.spacenet.archive import is_archive, unpack
from footprint_pipeline.spacenet.layout import discover
from footprint_pipeline_tests.spacenet.conftest import write_spacenet1, write_tar


def files(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not path.startswith("."))


def nested_archive(tmp_path: Path, count: int = 3, *, own_folder: bool = True) -> Path:
    """processedBuildingLabels.tar.gz: archives in an archive, with or without a folder of their own inside."""
    root = write_spacenet1(tmp_path / "made", count)
    vector = root / "vectordata"
    packed = tmp_path / "packed" / "processedBuildingLabels"
    for at, name in ((root, "3band"), (root, "8band"), (vector, "geojson")):
        target = packed / at.relative_to(root) / f"{name}.tar.gz"
        write_tar(target, at if own_folder else at / name, [name] if own_folder else ["."])
    write_tar(packed / "vectordata" / "summarydata.tar.gz", vector, ["summarydata"])
    names = ["3band.tar.gz", "8band.tar.gz", "vectordata/geojson.tar.gz", "vectordata/summarydata.tar.gz"]
    return write_tar(
        tmp_path / "processedBuildingLabels.tar.gz",
        packed.parent,
        [f"processedBuildingLabels/{name}" for name in names],
    )


def with_member(path: Path, member: tarfile.TarInfo, content: bytes = b"") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("own_folder", [True, False])
def test_archives_in_an_archive(tmp_path: Path, own_folder: bool) -> None:
    into = tmp_path / "out"
    unpacked = unpack([nested_archive(tmp_path, own_folder=own_folder)], into)
    assert files(into) == [
        *[f"processedBuildingLabels/3band/3band_AOI_1_RIO_img{number}.tif" for number in (1, 2, 3)],
        *[f"processedBuildingLabels/vectordata/geojson/Geo_AOI_1_RIO_img{number}.geojson" for number in (1, 2, 3)],
        "processedBuildingLabels/vectordata/summarydata/AOI_1_RIO_polygons_solution_3band.csv",
    ]
    made = tmp_path / "made" / "processedBuildingLabels" / "3band" / "3band_AOI_1_RIO_img2.tif"
    assert (into / "processedBuildingLabels" / "3band" / made.name).read_bytes() == made.read_bytes()
    assert unpacked.tile_ids == {f"AOI_1_RIO_img{number}" for number in (1, 2, 3)}
    assert discover(into).aoi == "AOI_1_Rio"


def test_several_archives_make_one_folder(tmp_path: Path) -> None:
    root = write_spacenet1(tmp_path / "made", 2)
    archives = [
        write_tar(tmp_path / "a.tar.gz", root, ["8band", "3band"]),
        write_tar(tmp_path / "b.tgz", root / "vectordata", ["geojson"]),
    ]
    unpack(archives, tmp_path / "out")
    assert {path.split("/")[0] for path in files(tmp_path / "out")} == {"3band", "geojson"}
    assert all(tile.geojson for tile in discover(tmp_path / "out").tiles)


def test_the_first_tiles_are_written_with_all_labels(tmp_path: Path) -> None:
    unpacked = unpack([nested_archive(tmp_path, 5)], tmp_path / "out", tiles=2)
    layout = discover(tmp_path / "out")
    assert len(layout.tiles) == 2
    assert layout.summary_csv is not None
    assert all(tile.geojson for tile in layout.tiles)
    assert len(unpacked.tile_ids) == 5


def test_a_second_call_does_nothing_unless_more_is_asked_for(tmp_path: Path) -> None:
    archive = nested_archive(tmp_path, 4)
    into = tmp_path / "out"

    def inode() -> int:
        return into.stat().st_ino

    first = unpack([archive], into, tiles=2)
    before = inode()
    assert unpack([archive], into, tiles=2) == first
    assert unpack([archive], into, tiles=1) == first
    assert inode() == before
    unpack([archive], into, tiles=3)
    assert len(discover(into).tiles) == 3
    unpack([archive], into)
    assert len(discover(into).tiles) == 4
    before = inode()
    unpack([archive], into, tiles=1)
    assert inode() == before
    other = write_tar(
        tmp_path / "other.tar.gz", write_spacenet1(tmp_path / "second", 1).parent, ["processedBuildingLabels"]
    )
    unpack([other], into)
    assert len(discover(into).tiles) == 1


def test_truncated_and_damaged_archives_leave_nothing(tmp_path: Path) -> None:
    whole = nested_archive(tmp_path).read_bytes()
    into = tmp_path / "out"
    for name, content in {
        "short.tar.gz": whole[: len(whole) // 2],
        "tail.tar.gz": whole[:-6],
        "flipped.tar.gz": whole[:-6] + bytes([whole[-6] ^ 0xFF]) + whole[-5:],
        "text.tar.gz": b"<html>Not found</html>",
        "empty.tar.gz": b"",
        "nottar.tar.gz": gzip.compress(b"just text" * 1000),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceError, match=f"{name} is damaged or truncated") as caught:
            unpack([tmp_path / name], into)
        assert "fetch it again" in caught.value.fix
        assert not into.exists()
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"made", "packed"}


def test_a_truncated_archive_within_an_archive_is_noticed(tmp_path: Path) -> None:
    root = write_spacenet1(tmp_path / "made", 3)
    inner = write_tar(tmp_path / "in" / "3band.tar.gz", root, ["3band"])
    inner.write_bytes(inner.read_bytes()[:-20])
    outer = write_tar(tmp_path / "outer.tar.gz", inner.parent, [inner.name])
    with pytest.raises(SourceError, match=r"outer\.tar\.gz is damaged or truncated"):
        unpack([outer], tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("../3band/3band_a_img1.tif", tarfile.REGTYPE, "leads out of the folder"),
        ("3band/../../3band_a_img1.tif", tarfile.REGTYPE, "leads out of the folder"),
        ("/3band/3band_a_img1.tif", tarfile.REGTYPE, "leads out of the folder"),
        ("3band\\..\\..\\3band_a_img1.tif", tarfile.REGTYPE, "leads out of the folder"),
        ("3band/3band_a_img1.tif", tarfile.SYMTYPE, "is a link"),
        ("3band/3band_a_img1.tif", tarfile.LNKTYPE, "is a link"),
        ("3band/3band_a_img1.tif", tarfile.FIFOTYPE, "is a device"),
        ("3band/3band_a_img1.tif", tarfile.CHRTYPE, "is a device"),
    ],
)
def test_an_archive_that_reaches_out_is_refused(tmp_path: Path, name: str, kind: bytes, reason: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    archive = with_member(tmp_path / "evil.tar.gz", member)
    with pytest.raises(SourceError, match=rf"evil\.tar\.gz is not safe to unpack: .* {reason}"):
        unpack([archive], tmp_path / "deep" / "out")
    assert list((tmp_path / "deep").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "evil.tar.gz"]


def test_an_archive_of_something_else_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    archive = write_tar(tmp_path / "photos.tar.gz", tmp_path, ["photos"])
    with pytest.raises(SourceError, match=r"photos\.tar\.gz holds no SpaceNet RGB tiles and no labels; found 1 \.jpg"):
        unpack([archive], tmp_path / "out")
    with pytest.raises(SourceError, match=r"none\.tar\.gz: there is no such archive"):
        unpack([tmp_path / "none.tar.gz"], tmp_path / "out")


def test_which_names_are_archives() -> None:
    assert is_archive("s3://bucket/A.TAR.GZ")
    assert is_archive("a.tgz")
    assert not is_archive("a.zip")
    assert not is_archive("a/")
