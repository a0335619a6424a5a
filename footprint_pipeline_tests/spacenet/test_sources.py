import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from footprint_pipeline.errors import MissingKeyError, SourceError
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.areas import Aoi, Part, Patterns, Source
from footprint_pipeline.spacenet.catalog import BUILT_IN, load_catalog
from footprint_pipeline.spacenet.download import S3, TransferSpec
from footprint_pipeline.spacenet.labels import read_labels
from footprint_pipeline.spacenet.sources import fetch, fingerprint, resolve_source
from footprint_pipeline_tests.areas import add_aoi
from footprint_pipeline_tests.conftest import Bucket
from footprint_pipeline_tests.spacenet.conftest import (
    noise_archive,
    polygon,
    row,
    square_wgs84,
    write_csv,
    write_geojson,
    write_spacenet1,
    write_tar,
    write_tile,
)
from footprint_pipeline_tests.spacenet.faulty_proxy import Faults, faulty_proxy


@pytest.fixture
def settings(bucket: Bucket) -> Settings:
    return Settings(s3_endpoint_url=bucket.endpoint_url)


@pytest.fixture
def wire(s3_server: str) -> Iterator[Faults]:
    """The way to the test's server, which counts what comes along it."""
    with faulty_proxy(s3_server) as counting:
        yield counting


def area(*sources: tuple[Part, ...] | str) -> Aoi:
    parts = [(Part(source),) if isinstance(source, str) else source for source in sources]
    return Aoi("town", "A town", tuple(Source(part) for part in parts))


def ids(*numbers: int) -> list[str]:
    return [f"AOI_1_RIO_img{number}" for number in numbers]


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*") if path.is_file()}


def rio_archives(tmp_path: Path, count: int = 3) -> tuple[bytes, bytes, bytes]:
    """The two tarballs of SpaceNet 1's newer layout, and the one of the older layout."""
    root = write_spacenet1(tmp_path / "made", count)
    paths = (
        write_tar(tmp_path / "three.tar.gz", root, ["3band"]),
        write_tar(tmp_path / "labels.tar.gz", root / "vectordata", ["geojson"]),
        write_tar(tmp_path / "old.tar.gz", root.parent, [root.name]),
    )
    return paths[0].read_bytes(), paths[1].read_bytes(), paths[2].read_bytes()


def test_a_folder_is_read_in_place(tmp_path: Path, settings: Settings) -> None:
    root = write_spacenet1(tmp_path / "city", 3)
    before = snapshot(tmp_path)
    layout = fetch(area(str(root)), tmp_path / "into", tiles=2, settings=settings)
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "into").exists()
    assert (layout.aoi, layout.source) == ("town", str(root))
    assert [tile.tile_id for tile in layout.tiles] == ids(1, 2)
    assert layout.tile_ids == set(ids(1, 2, 3))


def test_local_archives_one_and_several(tmp_path: Path, settings: Settings) -> None:
    rio_archives(tmp_path)
    one = fetch(area(str(tmp_path / "old.tar.gz")), tmp_path / "into", tiles=2, settings=settings)
    assert len(one.tiles) == 2
    assert set(ids(1, 2)) <= one.tile_ids
    assert len(read_labels(one).table) == 1
    several = (Part(str(tmp_path / "three.tar.gz")), Part(str(tmp_path / "labels.tar.gz")))
    two = fetch(area(several), tmp_path / "into", settings=settings)
    assert [tile.tile_id for tile in two.tiles] == ids(1, 2, 3)
    assert two.summary is None
    assert all(tile.geojson for tile in two.tiles)
    assert one.folder != two.folder


def test_an_archive_in_a_bucket_is_fetched_once(
    tmp_path: Path, bucket: Bucket, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    uri = bucket.put("x/old.tar.gz", rio_archives(tmp_path)[2])
    layout = fetch(area(uri), tmp_path / "into", tiles=1, settings=settings)
    assert len(layout.tiles) == 1
    assert layout.source == uri
    before = snapshot(tmp_path)
    assert fetch(area(uri), tmp_path / "into", tiles=1, settings=settings) == layout
    assert snapshot(tmp_path) == before


def test_a_missing_key_falls_through_to_the_next_source(
    tmp_path: Path, make_bucket: Callable[[str], Bucket], settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rio = BUILT_IN["AOI_1_Rio"]
    bucket = make_bucket("spacenet-dataset")
    three, labels, old = rio_archives(tmp_path)
    keys = [uri.removeprefix("s3://spacenet-dataset/") for source in rio.sources for uri in source.uris]

    with pytest.raises(SourceError, match=r"AOI_1_Rio: none of its 3 sources exists") as caught:
        fetch(rio, tmp_path / "into", settings=settings)
    assert keys[0] in caught.value.problem
    assert keys[3] in caught.value.problem

    bucket.put(keys[3], old)
    bucket.put(keys[0], three)  # its labels are not there: not this one, and nothing of it is downloaded
    layout = fetch(rio, tmp_path / "into", settings=settings)
    assert layout.source == rio.sources[2].uris[0]
    assert f"AOI_1_Rio: 3 tiles from {layout.source}" in caplog.messages
    assert any(f"there is no key '{keys[1]}'" in message for message in caplog.messages)
    assert not list((tmp_path / "into").rglob("SN1_*"))

    bucket.put(keys[1], labels)
    assert fetch(rio, tmp_path / "into", settings=settings) == layout  # what is here is not fetched from elsewhere
    layout = fetch(rio, tmp_path / "anew", settings=settings)
    assert layout.source == ", ".join(rio.sources[0].uris)
    assert (layout.aoi, len(layout.tiles), layout.summary) == ("AOI_1_Rio", 3, None)
    assert any("its checksum is not verified" in message for message in caplog.messages)


def test_with_a_limit_the_rest_of_an_archive_stays_where_it_is(
    tmp_path: Path, bucket: Bucket, wire: Faults, settings: Settings
) -> None:
    path = noise_archive(tmp_path / "town.tar.gz", tiles=24, labels="geojson")
    whole, into = path.stat().st_size, tmp_path / "into"
    aoi = area(bucket.put("town.tar.gz", path.read_bytes()))
    s3 = S3(endpoint_url=wire.url, transfer=TransferSpec(part_size=1 << 16, connections=2, ahead=2))

    def ask(tiles: int | None) -> tuple[int, bool]:
        layout = fetch(aoi, into, tiles=tiles, settings=settings, s3=s3)
        assert all(tile.geojson and tile.image.stat().st_size == 1 << 18 for tile in layout.tiles)
        assert layout.stray_geojson == ()
        return len(layout.tiles), layout.complete

    assert ask(2) == (2, False)
    assert wire.served < 0.35 * whole
    before = wire.gets
    assert ask(2) == (2, False)
    assert ask(1) == (1, False)
    assert wire.gets == before
    assert ask(9) == (9, False)
    assert 0.3 * whole < wire.served < 0.65 * whole
    assert ask(None) == (24, True)
    assert whole <= wire.served < 1.15 * whole  # only the parts under way at each end were sent twice
    before = wire.gets
    assert ask(None) == (24, True)
    assert ask(3) == (3, True)
    assert wire.gets == before


def test_with_a_limit_small_archives_of_labels_come_first(
    tmp_path: Path, bucket: Bucket, wire: Faults, settings: Settings
) -> None:
    tiles = noise_archive(tmp_path / "tiles.tar.gz", tiles=16, labels=None)
    labels = write_tar(
        tmp_path / "labels.tar.gz", write_spacenet1(tmp_path / "made", 16, csv=False) / "vectordata", ["geojson"]
    )
    parts = tuple(Part(bucket.put(path.name, path.read_bytes())) for path in (tiles, labels))
    s3 = S3(endpoint_url=wire.url, transfer=TransferSpec(part_size=1 << 16, connections=2, ahead=2))
    layout = fetch(area(parts), tmp_path / "into", tiles=2, settings=settings, s3=s3)
    assert [tile.tile_id for tile in layout.tiles] == ids(1, 2)
    assert len(read_labels(layout).table) == 1
    assert wire.served < 0.6 * tiles.stat().st_size


def test_spacenet2_comes_as_an_archive_or_with_a_limit_as_loose_files(
    tmp_path: Path, make_bucket: Callable[[str], Bucket], settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bucket = make_bucket("spacenet-dataset")
    for city, has in {"AOI_5_Khartoum": "both", "AOI_3_Paris": "loose", "AOI_2_Vegas": "archive"}.items():
        archive, loose = (source.uris[0].removeprefix("s3://spacenet-dataset/") for source in BUILT_IN[city].sources)
        for number in (1, 2):
            image, label = (
                f"SN2_buildings_train_{city}_{kind}_img{number}" for kind in ("PS-RGB", "geojson_buildings")
            )
            write_tile(tmp_path / city / "loose" / "PS-RGB" / f"{image}.tif", number=number)
            write_geojson(tmp_path / city / "loose" / "geojson_buildings" / f"{label}.geojson", [])
            write_tile(tmp_path / city / "Train" / "RGB-PanSharpen" / f"RGB-PanSharpen_{city}_img{number}.tif")
        rows = [row(f"{city}_img{number}", 1, 1) for number in (1, 2)]
        write_csv(tmp_path / city / "Train" / "summaryData" / f"{city}_Train_Building_Solutions.csv", rows)
        if has != "archive":
            bucket.put_folder(tmp_path / city / "loose", loose)
        if has != "loose":
            packed = write_tar(tmp_path / f"{city}.tar.gz", tmp_path / city, ["Train"])
            bucket.put(archive, packed.read_bytes())

    def kinds(city: str, *limits: int | None) -> list[tuple[str, int]]:
        caplog.clear()
        aoi, into = BUILT_IN[city], tmp_path / "into" / city
        layouts = [fetch(aoi, into, tiles=tiles, settings=settings) for tiles in limits]
        assert all(any(layout.source in message for message in caplog.messages) for layout in layouts)
        return [(layout.kind, len(layout.tiles)) for layout in layouts]

    assert kinds("AOI_5_Khartoum", 1, None, 2) == [("spacenet2-loose", 1), ("spacenet2", 2), ("spacenet2", 2)]
    assert kinds("AOI_3_Paris", None, 1) == [("spacenet2-loose", 2), ("spacenet2-loose", 1)]
    assert any("there is no key" in message for message in caplog.messages)
    assert kinds("AOI_2_Vegas", 1, None) == [("spacenet2", 1), ("spacenet2", 2)]
    assert any("nothing there" in message for message in caplog.messages)


def test_what_changes_of_a_source_is_what_is_used_of_it(tmp_path: Path, bucket: Bucket, settings: Settings) -> None:
    root = write_spacenet1(tmp_path / "made", 2)
    bucket.put_folder(root, "loose/")
    packed = bucket.put("old.tar.gz", write_tar(tmp_path / "old.tar.gz", root.parent, [root.name]).read_bytes())
    loose = f"s3://{bucket.name}/loose/"
    here, there = area(str(root)), area(packed, loose)
    (image,) = root.rglob("3band_AOI_1_RIO_img1.tif")

    def told() -> tuple[str, ...]:
        return (
            fingerprint(here, settings=settings),
            fingerprint(there, settings=settings),
            fingerprint(there, used=loose, settings=settings),
        )

    before = told()
    assert len({*before}) == 3
    for name in ("3band/3band_AOI_1_RIO_img1.tif.aux.xml", "8band/8band_AOI_1_RIO_img1.tif", "notes.txt"):
        (root / name).write_text("of a viewer")
        bucket.put(f"loose/{name}", b"of a viewer")
    assert told() == before
    image.write_bytes(b"another")
    bucket.put("loose/3band/3band_AOI_1_RIO_img1.tif", b"another")
    after = told()
    assert [a != b for a, b in zip(after, before, strict=True)] == [True, False, True]


def test_tiles_of_any_name_by_an_entry_in_the_users_file(tmp_path: Path, bucket: Bucket, settings: Settings) -> None:
    town = tmp_path / "town"
    for number in (1, 2, 3):
        write_tile(town / "imagery" / f"block {number}.tif", number=number)
        write_geojson(town / "labels" / f"block {number}.geojson", [polygon(square_wgs84(number))])
    write_csv(town / "labels.csv", [row(f"block {number}", 1, number) for number in (1, 2, 3)])
    bucket.put_folder(town, "town/2024/")
    bucket.put("town.tgz", write_tar(tmp_path / "town.tgz", tmp_path, ["town"]).read_bytes())
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "aois.yaml").write_text(
        f"""
folder: {{source: ../town, images: "imagery/{{tile}}.tif", labels: "labels/{{tile}}.geojson"}}
prefix:
  bucket: {bucket.name}
  prefix: town/2024
  endpoint_url: {bucket.endpoint_url}
  images: "imagery/{{tile}}.tif"
  labels: "labels/{{tile}}.geojson"
packed:
  bucket: {bucket.name}
  key: town.tgz
  images: "i*/{{tile}}.tif"
  summary: labels.csv
"""
    )
    catalog = load_catalog(tmp_path / "home")
    for name in ("folder", "prefix", "packed"):
        elsewhere = Settings(s3_endpoint_url="http://127.0.0.1:9") if name == "prefix" else settings
        layout = fetch(catalog[name], tmp_path / "into" / name, tiles=2, settings=elsewhere)
        assert (layout.aoi, layout.kind) == (name, "patterns")
        assert [tile.tile_id for tile in layout.tiles] == ["block 1", "block 2"]
        assert sorted(read_labels(layout).table["tile_id"]) == ["block 1", "block 2"]
        layout = fetch(catalog[name], tmp_path / "into" / name, settings=elsewhere)
        assert (len(layout.tiles), layout.complete, len(read_labels(layout).table)) == (3, True, 3)

    wrong = replace(catalog["prefix"], patterns=Patterns("pictures/{tile}.png", "labels/{tile}.geojson"))
    with pytest.raises(
        SourceError, match=r"town/2024/: no tiles\. Looked for pictures/\{tile\}\.png; found 7 files"
    ) as caught:
        fetch(wrong, tmp_path / "into" / "wrong", settings=settings)
    assert "aois.yaml" in caught.value.fix


def test_too_little_disk_is_said_before_anything_is_fetched(
    tmp_path: Path, bucket: Bucket, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_spacenet1(tmp_path / "made", 2)
    bucket.put_folder(root, "loose/")
    packed = bucket.put("old.tar.gz", write_tar(tmp_path / "old.tar.gz", root.parent, [root.name]).read_bytes())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda at: usage._replace(free=50_000_000))
    with pytest.raises(SourceError, match=r"/loose/: fetching 5 files needs .* has room for"):
        fetch(area(f"s3://{bucket.name}/loose/"), tmp_path / "into", settings=settings)
    unpacked = Aoi("town", "A town", (Source((Part(packed),), unpacked=80_000_000),))
    with pytest.raises(SourceError, match=r"old\.tar\.gz: fetching and unpacking it needs 8\d\.\d MB .* 50\.0 MB"):
        fetch(unpacked, tmp_path / "into", settings=settings)
    assert not [path for path in (tmp_path / "into").rglob("*") if path.is_file() and not path.name.startswith(".")]


def test_a_checksum_of_the_catalogue_is_verified(tmp_path: Path, bucket: Bucket, settings: Settings) -> None:
    content = rio_archives(tmp_path)[2]
    uri = bucket.put("old.tar.gz", content)
    part = Part(uri, len(content), "0" * 32)
    with pytest.raises(SourceError, match="the content has the MD5"):
        fetch(area((part,)), tmp_path / "into", settings=settings)
    assert not list((tmp_path / "into").rglob("*.tar.gz"))


def test_access_denied_does_not_fall_through(tmp_path: Path, bucket: Bucket, settings: Settings) -> None:
    content = rio_archives(tmp_path)[2]
    private = bucket.put("private.tar.gz", content, public=False)
    public = bucket.put("public.tar.gz", content)
    with pytest.raises(SourceError, match=r"private\.tar\.gz: access denied"):
        fetch(area(private, public), tmp_path / "into", settings=settings)


def test_loose_tiles_in_a_bucket(tmp_path: Path, bucket: Bucket, settings: Settings) -> None:
    root = write_spacenet1(tmp_path / "city", 12)
    bucket.put_folder(root, "AOI_1_Rio/")
    bucket.put("AOI_1_Rio/", b"")  # what a console leaves for a folder
    bucket.put("AOI_1_Rio/readme.pdf", b"not wanted")
    uri = f"s3://{bucket.name}/AOI_1_Rio"
    layout = fetch(area(uri), tmp_path / "into", tiles=10, settings=settings)
    assert [tile.tile_id for tile in layout.tiles] == ids(*range(1, 11))
    assert all(tile.geojson for tile in layout.tiles)
    assert layout.tile_ids == set(ids(*range(1, 13)))
    got = sorted(path.name for path in (tmp_path / "into").rglob("*") if path.is_file() and path.name[0] != ".")
    assert len(got) == 21
    assert "AOI_1_RIO_polygons_solution_3band.csv" in got
    assert "3band_AOI_1_RIO_img11.tif" not in got
    first = layout.tiles[0].image
    assert first.read_bytes() == (root / "3band" / first.name).read_bytes()

    before = snapshot(tmp_path / "into")
    fetch(area(uri), tmp_path / "into", tiles=10, settings=settings)
    assert snapshot(tmp_path / "into") == before
    first.unlink()
    more = fetch(area(uri), tmp_path / "into", settings=settings)
    assert len(more.tiles) == 12
    assert {path: now for path, now in snapshot(tmp_path / "into").items() if before.get(path, now) != now}.keys() <= {
        str(first),
        str(first.with_name(f".{first.name}.etag.json")),
        str(more.folder / ".fetched.json"),
    }
    assert len(fetch(area(uri), tmp_path / "into", tiles=3, settings=settings).tiles) == 3


def test_what_is_gone_from_a_bucket_is_not_used_any_more(
    tmp_path: Path, bucket: Bucket, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_spacenet1(tmp_path / "city", 4, csv=False)
    bucket.put_folder(root, "town/")
    town = area(f"s3://{bucket.name}/town/")
    first = fetch(town, tmp_path / "into", settings=settings)
    assert "no longer" not in caplog.text
    for key in ("3band/3band_AOI_1_RIO_img1.tif", "vectordata/geojson/Geo_AOI_1_RIO_img1.geojson",
                "vectordata/geojson/Geo_AOI_1_RIO_img3.geojson"):  # fmt: skip
        bucket.client.delete_object(Bucket=bucket.name, Key=f"town/{key}")
    (first.folder / "notes.txt").write_text("my own")

    layout = fetch(town, tmp_path / "into", settings=settings)
    assert [tile.tile_id for tile in layout.tiles] == ids(2, 3, 4)
    assert [tile.geojson is not None for tile in layout.tiles] == [True, False, True]
    assert (layout.tile_ids, layout.stray_geojson) == (set(ids(2, 3, 4)), ())
    assert f"{first.folder}: 3 files, " in caplog.text
    assert "are no longer at the source" in caplog.text
    assert [tile.tile_id for tile in fetch(town, tmp_path / "into", tiles=1, settings=settings).tiles] == ids(2)
    assert all(tile.image.exists() for tile in first.tiles)


def test_an_empty_prefix_and_one_with_other_things(tmp_path: Path, bucket: Bucket, settings: Settings) -> None:
    with pytest.raises(MissingKeyError, match=r"/nothing/: nothing there"):
        fetch(area(f"s3://{bucket.name}/nothing/"), tmp_path / "into", settings=settings)
    bucket.put("photos/a.jpg", b"")
    with pytest.raises(SourceError, match=r"/photos/: no SpaceNet tiles\. .*found 1 files: 1 \.jpg"):
        fetch(area(f"s3://{bucket.name}/photos/"), tmp_path / "into", settings=settings)
    bucket.put("evil/../3band/3band_a_img1.tif", b"")
    with pytest.raises(MissingKeyError, match="nothing there"):
        fetch(area(f"s3://{bucket.name}/evil/"), tmp_path / "into", settings=settings)


def test_an_aois_own_server_wins(tmp_path: Path, bucket: Bucket) -> None:
    uri = bucket.put("old.tar.gz", rio_archives(tmp_path)[2])
    mine = Aoi("town", "A town", (Source((Part(uri),)),), endpoint_url=bucket.endpoint_url)
    elsewhere = Settings(s3_endpoint_url="http://127.0.0.1:9")
    assert len(fetch(mine, tmp_path / "into", settings=elsewhere).tiles) == 3


def test_what_cannot_be_fetched_is_explained(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(SourceError, match="gone: does not exist"):
        fetch(area(str(tmp_path / "gone")), tmp_path / "into", settings=settings)
    (tmp_path / "a.zip").touch()
    with pytest.raises(SourceError, match=r"a\.zip: neither a folder nor a \.tar\.gz"):
        fetch(area(str(tmp_path / "a.zip")), tmp_path / "into", settings=settings)
    with pytest.raises(SourceError, match="cannot be combined"):
        fetch(area((Part("s3://b/one/"), Part("s3://b/two/"))), tmp_path / "into", settings=settings)


def test_the_synthetic_city_is_made_once(tmp_path: Path, settings: Settings) -> None:
    aoi = BUILT_IN["AOI_0_Synthetic"]
    layout = fetch(aoi, tmp_path, tiles=2, settings=settings)
    assert (layout.aoi, len(layout.tiles), layout.source) == ("AOI_0_Synthetic", 2, "synthetic:")
    before = snapshot(tmp_path)
    assert fetch(aoi, tmp_path, tiles=2, settings=settings) == layout
    assert snapshot(tmp_path) == before


def test_what_a_user_types_becomes_an_area(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.chdir(tmp_path)
    write_tile(tmp_path / "AOI_21_Accra" / "3band" / "3band_AOI_21_ACCRA_img1.tif")
    write_geojson(tmp_path / "AOI_21_Accra" / "geojson" / "Geo_AOI_21_ACCRA_img1.geojson", [])
    (tmp_path / "my town.tar.gz").touch()
    accra = resolve_source("AOI_21_Accra", home)
    assert (accra.name, accra.sources[0].uris) == ("AOI_21_Accra", ((tmp_path / "AOI_21_Accra").as_posix(),))
    assert resolve_source(".", home).name == "AOI_21_Accra"
    assert resolve_source("my town.tar.gz", home).name == "my_town"
    assert resolve_source("AOI_3_Paris", home) is BUILT_IN["AOI_3_Paris"]
    vegas = "s3://spacenet-dataset/spacenet/SN2_buildings/tarballs/SN2_buildings_train_AOI_2_Vegas.tar.gz"
    assert resolve_source(vegas, home) is BUILT_IN["AOI_2_Vegas"]
    older = resolve_source(BUILT_IN["AOI_1_Rio"].sources[2].uris[0], home)
    assert (older.name, older.sources) == ("AOI_1_Rio", BUILT_IN["AOI_1_Rio"].sources[2:])
    loose = resolve_source("s3://mirror/SN2_buildings/train/AOI_5_Khartoum/", home)
    assert (loose.name, loose.sources[0].uris) == (
        "AOI_5_Khartoum",
        ("s3://mirror/SN2_buildings/train/AOI_5_Khartoum/",),
    )
    assert resolve_source("s3://b/AOI_1_Rio_3band.tar.gz", home).name == "AOI_1_Rio"
    written = add_aoi(home, "renamed", "AOI_21_Accra")
    assert resolve_source("AOI_21_Accra", home) == written
    assert resolve_source("renamed", home) == written


def test_what_is_no_source_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"'AOI_1_Roi' is no name .*Did you mean AOI_1_Rio\?") as caught:
        resolve_source("AOI_1_Roi", tmp_path)
    assert "AOI_5_Khartoum" in caught.value.fix
    (tmp_path / "tiles.zip").touch()
    with pytest.raises(SourceError, match=r"tiles\.zip' is a file, but no \.tar\.gz"):
        resolve_source(str(tmp_path / "tiles.zip"), tmp_path)
    with pytest.raises(SourceError, match="no SpaceNet tiles"):
        resolve_source(str(tmp_path), tmp_path / "home")
    with pytest.raises(SourceError, match="'s3://' is not an S3 address"):
        resolve_source("s3://", tmp_path / "home")


def test_a_real_folder_through_a_bucket(real_data: Path, tmp_path: Path, bucket: Bucket, settings: Settings) -> None:
    local = resolve_source(str(real_data / "rio"), tmp_path)
    assert local.name == "AOI_1_Rio"
    folder = tmp_path / "copy"
    shutil.copytree(real_data / "rio", folder)
    bucket.put_folder(folder, "rio/")
    remote = fetch(area(f"s3://{bucket.name}/rio/"), tmp_path / "into", settings=settings)
    here = fetch(local, tmp_path / "into", settings=settings)
    assert remote.tile_ids == here.tile_ids
    assert len(remote.tiles) == 12
