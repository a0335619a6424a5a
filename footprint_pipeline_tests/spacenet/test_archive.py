import fcntl
import gzip
import io
import logging
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from footprint_pipeline.errors import SourceError
from footprint_pipeline.spacenet import archive as archive_module
from footprint_pipeline.spacenet.archive import Archive, is_archive, unpack
from footprint_pipeline.spacenet.areas import Patterns
from footprint_pipeline.spacenet.layout import discover
from footprint_pipeline.spacenet.safe_tar import Limits, Meter, plain_files
from footprint_pipeline_tests.spacenet.conftest import noise_archive, write_spacenet1, write_tar


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


def with_member(path: Path, member: tarfile.TarInfo, content: bytes = b"", **options: int) -> Path:
    with tarfile.open(path, "w:gz", **options) as tar:
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


def counted(path: Path, read: list[int]) -> Archive:
    """An archive that tells how far it was read."""

    @contextmanager
    def content() -> Iterator[IO[bytes]]:
        with path.open("rb") as file:
            yield file
            read.append(file.tell())

    return Archive(path.name, path.stat().st_size, "1", content, "Fetch it again.")


@pytest.mark.parametrize("labels", ["summary", "geojson"])
def test_reading_ends_with_the_last_tile_asked_for(tmp_path: Path, labels: str) -> None:
    path = noise_archive(tmp_path / "town.tar.gz", tiles=20, labels=labels)
    whole, into, read = path.stat().st_size, tmp_path / "out", []
    archive = counted(path, read)

    first = unpack([archive], into, tiles=2)
    assert not first.complete
    assert first.tile_ids == {"AOI_1_RIO_img1", "AOI_1_RIO_img2"}
    assert read.pop() < 0.3 * whole
    layout = discover(into, tile_ids=first.tile_ids, complete=first.complete)
    assert [tile.tile_id for tile in layout.tiles] == ["AOI_1_RIO_img1", "AOI_1_RIO_img2"]
    assert (layout.summary is not None) == (labels == "summary")
    assert not layout.complete

    assert unpack([archive], into, tiles=1) == unpack([archive], into, tiles=2) == first
    assert not read
    assert len(unpack([archive], into, tiles=10).tile_ids) == 10
    assert 0.4 * whole < read.pop() < 0.7 * whole
    every = unpack([archive], into, tiles=21)
    assert (every.complete, len(every.tile_ids)) == (True, 20)
    assert read.pop() == whole
    assert unpack([archive], into) == unpack([archive], into, tiles=5) == every
    assert not read


def test_tiles_whose_labels_come_last_take_the_whole_archive(tmp_path: Path) -> None:
    root = write_spacenet1(tmp_path / "made", 5, geojson=False)
    archive = write_tar(tmp_path / "town.tar.gz", root, ["3band", "8band", "vectordata"])
    unpacked = unpack([archive], tmp_path / "out", tiles=2)
    layout = discover(tmp_path / "out")
    assert len(layout.tiles) == 2
    assert layout.summary is not None
    assert len(unpacked.tile_ids) == 5


def test_labels_in_an_archive_of_their_own(tmp_path: Path) -> None:
    tiles = noise_archive(tmp_path / "tiles.tar.gz", tiles=20, labels=None)
    root = write_spacenet1(tmp_path / "made", 20, csv=False)
    labels = write_tar(tmp_path / "labels.tar.gz", root / "vectordata", ["geojson"])
    read: list[int] = []
    unpacked = unpack([Archive.at(labels), counted(tiles, read)], tmp_path / "out", tiles=2)
    layout = discover(tmp_path / "out", tile_ids=unpacked.tile_ids, complete=unpacked.complete)
    assert [tile.geojson is not None for tile in layout.tiles] == [True, True]
    assert layout.stray_geojson == ()  # of the other 18: they are not known to be in the source, nor not to be
    assert read.pop() < 0.3 * tiles.stat().st_size


def test_files_of_other_names_by_their_patterns(tmp_path: Path) -> None:
    for number in (1, 2):
        for name in (f"imagery/r{number}.tif", f"imagery/r{number}.txt", f"outlines/r{number}_b.geojson"):
            (tmp_path / "town" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "town" / name).write_text("{}")
    archive = write_tar(tmp_path / "town.tar.gz", tmp_path, ["town"])
    patterns = Patterns("imagery/{tile}.tif", "outlines/{tile}_b.geojson")
    unpacked = unpack([archive], tmp_path / "out", patterns=patterns)
    assert unpacked.tile_ids == {"r1", "r2"}
    assert files(tmp_path / "out") == [
        *[f"town/imagery/r{number}.tif" for number in (1, 2)],
        *[f"town/outlines/r{number}_b.geojson" for number in (1, 2)],
    ]
    with pytest.raises(SourceError, match=r"holds no files of the patterns in aois\.yaml; found 2 \.tif"):
        unpack([archive], tmp_path / "none", patterns=Patterns("pictures/{tile}.tif", summary="labels.csv"))


def test_patterns_that_are_corrected_take_other_files(tmp_path: Path) -> None:
    for name in ("imagery/r1.tif", "outlines/r1.geojson", "second/r1.geojson"):
        (tmp_path / "town" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "town" / name).write_text("{}")
    archive, into = write_tar(tmp_path / "town.tar.gz", tmp_path, ["town"]), tmp_path / "out"
    wrong = Patterns("images/{tile}.tif", "outlines/{tile}.geojson")
    assert unpack([archive], into, patterns=wrong).tile_ids == frozenset()
    right = replace(wrong, images="imagery/{tile}.tif")
    assert unpack([archive], into, patterns=right).tile_ids == {"r1"}
    before = into.stat().st_ino
    unpack([archive], into, patterns=right)
    assert into.stat().st_ino == before
    unpack([archive], into, patterns=replace(right, labels="second/{tile}.geojson"))
    assert files(into) == ["town/imagery/r1.tif", "town/second/r1.geojson"]


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


def test_what_follows_the_end_of_an_archive_is_not_left_out_silently(tmp_path: Path) -> None:
    root = write_spacenet1(tmp_path / "made", 2)
    packed = [
        write_tar(tmp_path / f"{number}.tar.gz", root, [f"3band/3band_AOI_1_RIO_img{number}.tif"]).read_bytes()
        for number in (1, 2)
    ]
    plain = [bytearray(gzip.decompress(content)) for content in packed]
    both = write_tar(tmp_path / "3.tar.gz", root, ["3band"])
    whole = bytearray(gzip.decompress(both.read_bytes()))
    with tarfile.open(both) as tar:
        whole[tar.getmembers()[-1].offset] ^= 0xFF  # so that its checksum is wrong
    for name, content in {
        "joined.tar.gz": b"".join(packed),
        "one_gzip.tar.gz": gzip.compress(b"".join(plain)),
        "header.tar.gz": gzip.compress(bytes(whole)),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceError, match=f"{name}: more follows the end of the archive, or a damaged header"):
            unpack([tmp_path / name], tmp_path / "out")
        assert not (tmp_path / "out").exists()
    (tmp_path / "padded.tar.gz").write_bytes(gzip.compress(bytes(plain[0]) + bytes(3 << 20)))
    unpack([tmp_path / "padded.tar.gz"], tmp_path / "out")
    assert files(tmp_path / "out") == ["3band/3band_AOI_1_RIO_img1.tif"]


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
        ("3band/3band_a_img1.tif", tarfile.GNUTYPE_SPARSE, "is a sparse file"),
        ("C:/3band/3band_a_img1.tif", tarfile.REGTYPE, "leads out of the folder"),
        (f"3band/3band_{'a' * 300}_img1.tif", tarfile.REGTYPE, "is no name of a file"),
        ("a/" * 600 + "3band/3band_a_img1.tif", tarfile.REGTYPE, "is no name of a file"),
    ],
)
def test_an_archive_that_reaches_out_is_refused(tmp_path: Path, name: str, kind: bytes, reason: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    archive = with_member(tmp_path / "evil.tar.gz", member)
    with pytest.raises(SourceError, match=rf"evil\.tar\.gz is not safe to unpack: .* {reason}"):
        unpack([archive], tmp_path / "deep" / "out")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == [".out.lock"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "evil.tar.gz"]


def test_headers_that_make_no_sense_are_those_of_a_damaged_archive(tmp_path: Path) -> None:
    name = tarfile.TarInfo("3band/3band_a_img1.tif")
    for number, headers in enumerate(({"path": "3band/3band_\0_img1.tif"}, {"GNU.sparse.map": "abc"})):
        name.pax_headers = headers
        archive = with_member(tmp_path / f"odd{number}.tar.gz", name, format=tarfile.PAX_FORMAT)
        with pytest.raises(SourceError, match=rf"odd{number}\.tar\.gz is (not safe to unpack|damaged)"):
            unpack([archive], tmp_path / "out")


def test_a_file_where_there_is_a_folder_is_told(tmp_path: Path) -> None:
    path = tmp_path / "odd.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name in ("3band/3band_a_img1.tif", "3band/3band_a_img1.tif/3band/3band_b_img2.tif"):
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(SourceError, match="the archive has a file where it has a folder"):
        unpack([path], tmp_path / "out")


def zeros(path: Path, name: str, megabytes: int) -> Path:
    """An archive of files of 1 MB that hold nothing but zeros: a thousandth of their size."""
    member = tarfile.TarInfo(name)
    member.size = 1 << 20
    path.write_bytes(gzip.compress(member.tobuf() + bytes(member.size)) * megabytes + gzip.compress(bytes(1024)))
    return path


def test_a_decompression_bomb_is_defused(tmp_path: Path) -> None:
    into = tmp_path / "out"
    limits = Limits(ratio=100, floor=4 << 20)
    ignored = zeros(tmp_path / "ignored.tar.gz", "8band/not-even-written.tif", 400)
    with pytest.raises(SourceError, match=r"ignored\.tar\.gz is not safe to unpack: .* a decompression bomb"):
        unpack([ignored], into)  # by the limits that are in force

    tile = zeros(tmp_path / "tile.tar.gz", "3band/3band_a_img1.tif", 20)
    with pytest.raises(SourceError, match=r"tile\.tar\.gz is not safe to unpack: .* a decompression bomb"):
        unpack([tile], into, limits=limits)
    inner = zeros(tmp_path / "3band.tar.gz", "3band/3band_a_img1.tif", 20)
    outer = write_tar(tmp_path / "outer.tar.gz", tmp_path, [inner.name])
    with pytest.raises(SourceError, match=r"outer\.tar\.gz is not safe to unpack: .* a decompression bomb"):
        unpack([outer], into, limits=limits)

    claimed = tarfile.TarInfo("3band/3band_a_img1.tif")
    claimed.size = 1 << 50
    (tmp_path / "claim.tar.gz").write_bytes(gzip.compress(claimed.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    with pytest.raises(SourceError, match=r"claim\.tar\.gz is not safe .* said to have 1,125,899,906,842,624 bytes"):
        unpack([tmp_path / "claim.tar.gz"], into)
    assert not into.exists()

    unpack([tile], into)  # blank tiles are no bomb
    assert (into / "3band" / "3band_a_img1.tif").stat().st_size == 1 << 20


def test_a_full_disk_is_noticed_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = noise_archive(tmp_path / "town.tar.gz", tiles=4, labels="geojson")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda at: usage._replace(free=(64 << 20) + 200_000))
    with pytest.raises(
        SourceError, match=r"town\.tar\.gz: unpacking needs 5,000\.0 MB .* has room for 67\.3 MB"
    ) as caught:
        unpack([path], tmp_path / "out", needed=5_000_000_000)
    assert "--tiles" in caught.value.fix
    with pytest.raises(SourceError, match=r"img1\.tif needs"):  # while writing: 256 KB into 200 KB
        unpack([path], tmp_path / "out", tiles=1)
    assert not (tmp_path / "out").exists()


def test_what_a_killed_run_left_goes_and_what_another_works_on_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = noise_archive(tmp_path / "town.tar.gz", tiles=1, labels="geojson")
    into = tmp_path / "out"
    left = [tmp_path / name for name in (".0123abcd-out", ".0123abcd-former-out", ".0123abcd-other")]
    for folder in left:
        (folder / "3band").mkdir(parents=True)
    with (tmp_path / ".out.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=unpack, args=([path], into))
        second.start()
        while "waiting for another process" not in caplog.text:
            second.join(0.01)
        assert all(folder.exists() for folder in left)
        assert not into.exists()
    second.join()
    assert [folder.exists() for folder in left] == [False, False, True]
    assert discover(into).tile_ids == {"AOI_1_RIO_img1"}


def test_an_interrupted_unpacking_leaves_what_was_there(tmp_path: Path) -> None:
    path = noise_archive(tmp_path / "town.tar.gz", tiles=6, labels="geojson")
    into = tmp_path / "out"
    unpack([path], into, tiles=1)

    class Interrupted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > path.stat().st_size // 2:
                raise KeyboardInterrupt
            return super().read(size)

    arriving = Archive("town.tar.gz", path.stat().st_size, "2", lambda: Interrupted(path.read_bytes()), "")
    with pytest.raises(KeyboardInterrupt):
        unpack([arriving], into, tiles=5)
    assert discover(into).tile_ids == {"AOI_1_RIO_img1"}
    assert not list(tmp_path.glob(".????????-*"))


def test_progress_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(archive_module, "_SAY_EVERY_S", 0.0)
    unpack([noise_archive(tmp_path / "town.tar.gz", tiles=4, labels="geojson")], tmp_path / "out")
    said = [message for message in caplog.messages if "of the archive read" in message]
    assert said[0].startswith("town.tar.gz: 0 tiles, ")
    assert said[-1] == "town.tar.gz: 4 tiles, 100 % of the archive read"


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


def test_what_a_mac_writes_beside_an_archive_within_an_archive_is_passed_over(tmp_path: Path) -> None:
    path, packed = nested_archive(tmp_path), tmp_path / "packed"
    (packed / "processedBuildingLabels" / "._3band.tar.gz").write_bytes(b"\0\5\x16\7" * 8)
    write_tar(path, packed, ["processedBuildingLabels"])
    assert len(discover(unpack([path], tmp_path / "out").folder).tiles) == 3


def test_a_bomb_goes_off_by_what_was_read_of_an_archive_and_not_by_what_follows() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        bomb = tarfile.TarInfo("3band/3band_AOI_1_RIO_img1.tif")
        bomb.size = 1 << 24
        tar.addfile(bomb, io.BytesIO(bytes(bomb.size)))
    packed.seek(0)
    meter = Meter("town.tar.gz", 1 << 30, Limits(ratio=10, floor=1 << 20), lambda share: None)

    def read_all() -> None:
        for _, _, content in plain_files(meter.packed(packed), "town.tar.gz", meter):
            while content.read(1 << 16):
                pass

    with pytest.raises(SourceError, match="a decompression bomb"):
        read_all()
