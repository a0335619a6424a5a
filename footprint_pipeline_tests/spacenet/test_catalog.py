import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from footprint_pipeline.commands.catalog import aois
from footprint_pipeline.errors import MissingKeyError, SettingsError, SourceError
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet import own_areas
from footprint_pipeline.spacenet.areas import Aoi, Part, Patterns, Source
from footprint_pipeline.spacenet.catalog import BUILT_IN, load_catalog
from footprint_pipeline_tests.areas import add_aoi


def test_the_built_in_areas_are_complete_and_come_in_order(tmp_path: Path) -> None:
    catalog = load_catalog(tmp_path)
    assert list(catalog) == [
        "AOI_0_Synthetic",
        "AOI_1_Rio",
        "AOI_2_Vegas",
        "AOI_3_Paris",
        "AOI_4_Shanghai",
        "AOI_5_Khartoum",
    ]
    rio = catalog["AOI_1_Rio"]
    assert [len(source.parts) for source in rio.sources] == [2, 1, 1]
    first = rio.sources[0].parts[0]
    assert first.uri.endswith("spacenet/SN1_buildings/tarballs/SN1_buildings_train_AOI_1_Rio_3band.tar.gz")
    assert (first.size, first.md5) == (2_571_888_708, "279e334a2120ecac70439ea246174516")
    older = "s3://spacenet-dataset/AOI_1_Rio/processedData/processedBuildingLabels.tar.gz"
    assert rio.sources[2].uris == (older,)
    assert all(name == aoi.name for name, aoi in catalog.items())
    for city in list(catalog)[2:]:
        packed, loose = catalog[city].sources
        assert packed.uris[0].endswith(f"spacenet/SN2_buildings/tarballs/SN2_buildings_train_{city}.tar.gz")
        assert packed.parts[0].md5
        assert loose.uris == (f"s3://spacenet-dataset/spacenet/SN2_buildings/train/{city}/",)
        assert (packed.packed, loose.packed, loose.size) == (True, False, None)
        assert packed.size > 4e9
    assert rio.sources[0].size == 2_571_888_708 + 21_118_272
    assert 3.5e9 < rio.sources[0].unpacked < 4e9


def test_a_written_area_is_read_back_after_the_built_in_ones(tmp_path: Path) -> None:
    home = tmp_path / "state"
    accra = add_aoi(home, "AOI_21_Accra", str(tmp_path / "accra"), title="Accra", gsd_m=0.3)
    bucket = add_aoi(home, "mine", "s3://bucket/prefix/", endpoint_url="http://localhost:9000")
    catalog = load_catalog(home)
    assert list(catalog)[-2:] == ["AOI_21_Accra", "mine"]
    assert catalog["AOI_21_Accra"] == accra
    assert accra.sources[0].uris == ((tmp_path / "accra").as_posix(),)
    assert (accra.title, accra.gsd_m) == ("Accra", 0.3)
    assert catalog["mine"] == bucket
    assert bucket.endpoint_url == "http://localhost:9000"


def test_a_relative_source_counts_from_where_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    added = add_aoi(tmp_path / "home", "here", "tiles")
    assert added.sources[0].uris == ((tmp_path / "tiles").as_posix(),)
    (tmp_path / "home" / "aois.yaml").write_text("byhand: {source: [a.tar.gz, b.tar.gz]}")
    byhand = load_catalog(tmp_path / "home")["byhand"]
    assert byhand.sources[0].uris == tuple((tmp_path / "home" / name).as_posix() for name in ("a.tar.gz", "b.tar.gz"))


def test_adding_twice_writes_once_and_another_source_replaces(tmp_path: Path) -> None:
    add_aoi(tmp_path, "other", "s3://b/other/")
    first = add_aoi(tmp_path, "mine", "s3://b/one/")
    written = (tmp_path / "aois.yaml").stat().st_mtime_ns
    assert add_aoi(tmp_path, "mine", "s3://b/one/") == first
    assert (tmp_path / "aois.yaml").stat().st_mtime_ns == written
    add_aoi(tmp_path, "mine", "s3://b/two/")
    assert load_catalog(tmp_path)["mine"].sources[0].uris == ("s3://b/two/",)
    assert yaml.safe_load((tmp_path / "aois.yaml").read_text())["other"] == {"source": "s3://b/other/"}
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["aois.yaml", "aois.yaml.bak"]
    assert yaml.safe_load((tmp_path / "aois.yaml.bak").read_text())["mine"] == {"source": "s3://b/one/"}


def test_what_a_user_wrote_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "aois.yaml"
    written = "# Our town, since 2019\nTown: {source: 's3://b/town/'}   # drone\n\n# more to come"
    path.write_text(written)
    add_aoi(tmp_path, "mine", "s3://b/mine/")
    assert path.read_text() == written + "\nmine:\n  source: s3://b/mine/\n"
    path.write_text("{Town: {source: 's3://b/town/'}}")  # nothing can be added at the end
    add_aoi(tmp_path, "mine", "s3://b/mine/")
    assert list(yaml.safe_load(path.read_text())) == ["Town", "mine"]
    assert path.with_name("aois.yaml.bak").read_text() == "{Town: {source: 's3://b/town/'}}"


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "aois.yaml").write_text("My: {source: d}\nOther: {source: f}\nMy: {source: e}\n")
    with pytest.raises(SettingsError, match=r"aois\.yaml, line 3: .*My stands twice"):
        load_catalog(tmp_path)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../up", "ä", "a.b"])
def test_a_name_that_cannot_be_a_partition_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="letters, digits, '_' and '-' only"):
        add_aoi(tmp_path, name, "s3://b/k/")
    assert not (tmp_path / "aois.yaml").exists()


def test_ones_own_copy_takes_the_place_of_a_built_in_area(tmp_path: Path) -> None:
    add_aoi(tmp_path, "AOI_2_Vegas", str(tmp_path / "vegas"))
    catalog = load_catalog(tmp_path)
    assert list(catalog) == list(BUILT_IN)
    assert catalog["AOI_2_Vegas"].sources[0].uris == ((tmp_path / "vegas").as_posix(),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine: {source: [", "line 1: cannot be read as YAML"),
        ("- a\n- b\n", "holds a list, not names with values"),
        ("mine: 3", "AOI 'mine': must be a mapping"),
        ("mine: {title: x}", "AOI 'mine': 'source' is missing"),
        ("mine: {source: 4}", "AOI 'mine': 'source' is missing or not text"),
        ("mine: {source: [a, '']}", "AOI 'mine': 'source' is missing or not text"),
        ("mine: {source: x, gsd: 1}", "AOI 'mine': unknown gsd"),
        ("mine: {source: x, gsd_m: wide}", "AOI 'mine': gsd_m is 'wide'"),
        ("mine: {source: x, endpoint_url: 4}", "AOI 'mine': endpoint_url is not text"),
        ("mine: {source: x, licence: ''}", "AOI 'mine': licence is not text"),
        ("mine: {prefix: a/}", "AOI 'mine': prefix without a bucket"),
        ("mine: {bucket: b}", "AOI 'mine': a bucket needs either a key or a prefix"),
        ("mine: {bucket: b, key: a.tgz, prefix: a/}", "AOI 'mine': a bucket needs either a key or a prefix"),
        ("mine: {bucket: b, key: a.tgz, source: x}", "AOI 'mine': a bucket needs either a key or a prefix, and no"),
        ("mine: {bucket: b/c, prefix: a/}", "AOI 'mine': bucket is 'b/c'"),
        ("mine: {bucket: b, key: a.zip}", "AOI 'mine': key is 'a.zip', no .tar.gz"),
        ("mine: {bucket: b, key: [a.tgz, 4]}", "AOI 'mine': 'key' is missing or not text"),
        ("mine: {bucket: b, key: a.tgz, size: 1.5}", "AOI 'mine': size is 1.5"),
        ("mine: {bucket: b, key: a.tgz, md5: abc}", "AOI 'mine': md5 is 'abc'"),
        ("mine: {source: x, size: 5}", "AOI 'mine': size and md5 are of archives in a bucket"),
        ("mine: {bucket: b, key: [a.tgz, b.tgz], size: 5}", "AOI 'mine': size holds 1, not one for each of 2 archives"),
        ("mine: {bucket: b, key: [a.tgz, b.tgz], size: [5, x]}", "AOI 'mine': size is 'x'"),
        ("mine: {source: x, unpacked: 1.5}", "AOI 'mine': unpacked is 1.5"),
        ("mine: {source: x, otherwise: y}", "AOI 'mine': otherwise is not a list"),
        ("mine: {source: x, otherwise: [{source: y, title: z}]}", "AOI 'mine': unknown title"),
        ("mine: {source: x, images: '{tile}.tif'}", "AOI 'mine': has images."),
        ("mine: {source: x, labels: '{tile}.json'}", "AOI 'mine': has labels."),
        ("mine: {source: x, images: 'a.tif', summary: a.csv}", "AOI 'mine': images is 'a.tif'"),
        ("mine: {source: x, images: '{id}{tile}.tif', summary: a.csv}", "AOI 'mine': images is '{id}{tile}.tif'"),
        ("mine: {source: x, images: '../{tile}.tif', summary: a.csv}", "AOI 'mine': images is '../{tile}.tif'"),
        ("mine: {source: x, images: '{tile}.jpg', summary: a.csv}", "AOI 'mine': images is '{tile}.jpg'"),
        ("mine: {source: x, images: '{tile}.tif', summary: '{tile}.csv'}", "AOI 'mine': summary is '{tile}.csv'"),
        ("a b: {source: x}", "AOI 'a b': the name may hold"),
    ],
)
def test_a_broken_file_is_named_with_its_entry(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "aois.yaml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_catalog(tmp_path)
    assert message in caught.value.problem
    assert str(tmp_path / "aois.yaml") in caught.value.problem
    assert caught.value.fix


@pytest.mark.parametrize("name", ["buildings.shp", "maps/buildings.gml"])
def test_a_vector_file_that_is_not_read_comes_with_what_converts_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "aois.yaml").write_text(f"mine: {{source: x, images: '{{tile}}.tif', summary: {name}}}")
    with pytest.raises(SettingsError, match=f"summary is '{name}'") as caught:
        load_catalog(tmp_path)
    assert caught.value.fix.endswith(f"ogr2ogr buildings.gpkg {name}")


def test_a_pattern_may_say_that_it_begins_at_the_source(tmp_path: Path) -> None:
    (tmp_path / "aois.yaml").write_text("mine: {source: x, images: './t/{tile}.tif', labels: './l//{tile}.json'}")
    assert load_catalog(tmp_path)["mine"].patterns == Patterns("t/{tile}.tif", "l/{tile}.json")


def test_the_documented_example_is_read(tmp_path: Path) -> None:
    text = own_areas.__doc__.partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "aois.yaml").write_text(text)
    catalog = load_catalog(tmp_path)
    mine, stored, packed, mirrored = (catalog[name] for name in list(catalog)[-4:])
    assert (mine.name, mine.gsd_m, mine.licence, mine.patterns) == ("AOI_9_Mine", 0.3, "CC BY 4.0", None)
    assert mine.sources[0].uris == ("/data/mine",)
    assert stored.sources[0].uris == ("s3://my-bucket/town/2024/",)
    assert stored.patterns == Patterns("imagery/{tile}.tif", "labels/{tile}.geojson")
    assert stored.endpoint_url == "https://storage.example.org"
    part = Part("s3://my-bucket/town.tar.gz", 123456789, "0123456789abcdef0123456789abcdef")
    assert packed.sources[0].parts == (part,)
    assert packed.patterns == Patterns("imagery/{tile}.tif", summary="labels.csv")
    tiles, labels = Part("s3://my-bucket/tiles.tar.gz", 123456789), Part("s3://my-bucket/labels.tar.gz", 1234567)
    assert mirrored.sources == (Source((tiles, labels), 234567890), Source((Part("s3://my-bucket/loose/"),)))
    assert text in (Path(own_areas.__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def test_areas_that_are_added_at_once_are_all_kept(tmp_path: Path) -> None:
    names = [f"AOI_9_Town{number}" for number in range(16)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: add_aoi(tmp_path, name, str(tmp_path)), names))
    assert set(names) <= load_catalog(tmp_path).keys()


def test_where_nothing_turns_out_to_be_the_file_is_what_it_was(tmp_path: Path) -> None:
    def look(source: str, error: SourceError, *, more: bool = False) -> None:
        aoi = Aoi("mine", "mine", (Source((Part(source),)),))
        with suppress(SourceError), own_areas.added(tmp_path, aoi):
            assert load_catalog(tmp_path)["mine"].sources == aoi.sources
            if more:
                add_aoi(tmp_path, "another", "s3://b/x/")
            raise error

    nothing, away = MissingKeyError("no such key", fix=""), SourceError("the server is away", fix="")
    look("s3://b/wrong/", nothing)
    assert not (tmp_path / "aois.yaml").exists()
    add_aoi(tmp_path, "mine", "s3://b/right/")
    path = tmp_path / "aois.yaml"
    path.write_text(text := f"# by hand\n{path.read_text()}")
    look("s3://b/wrong/", nothing)
    assert path.read_text() == text
    look("s3://b/wrong/", nothing, more=True)
    assert "another" in load_catalog(tmp_path)
    look("s3://b/new/", away)
    assert load_catalog(tmp_path)["mine"].sources[0].uris == ("s3://b/new/",)


def test_an_area_with_patterns_is_written_and_read_back(tmp_path: Path) -> None:
    patterns = Patterns("imagery/{tile}.tif", "labels/{tile}.geojson")
    written = add_aoi(tmp_path, "mine", "s3://b/one/", licence="CC0", patterns=patterns)
    assert load_catalog(tmp_path)["mine"] == written
    assert (written.patterns, written.licence) == (patterns, "CC0")


def test_the_list_is_aligned_and_has_all_that_is_known(tmp_path: Path) -> None:
    add_aoi(tmp_path, "mine", str(tmp_path / "town"), title="My town")
    add_aoi(tmp_path, "far", "s3://bucket/town.tar.gz", endpoint_url="https://me:secret@storage.example.org:9000")
    (tmp_path / "lake" / "mine").mkdir(parents=True)
    answer = aois(Settings(home=tmp_path))
    header, *lines = answer["_lines"][: len(answer["aois"]) + 1]
    column = {name: header.index(name) for name in header.split()}
    of = {line.split()[0]: line for line in lines}
    assert list(of) == list(load_catalog(tmp_path))
    rio = of["AOI_1_Rio"]
    assert rio[column["TITLE"] :].startswith("Rio de Janeiro")
    assert rio[column["GSD"] :].startswith("0.5 m ")
    assert rio[column["DOWNLOAD"] :].startswith("2.6 GB")
    assert rio[column["LICENCE"] :].startswith("CC BY-SA 4.0")
    assert rio[column["FROM"] :] == "s3://spacenet-dataset"
    assert of["mine"][column["FROM"] :] == (tmp_path / "town").as_posix()
    assert of["far"][column["DOWNLOAD"] :].startswith("unknown")
    assert of["far"].endswith("s3://bucket at storage.example.org:9000")

    known = {entry["name"]: entry for entry in json.loads(json.dumps(answer["aois"]))}
    assert (known["AOI_1_Rio"]["size"], known["AOI_1_Rio"]["md5_known"]) == (2_593_006_980, True)
    assert len(known["AOI_1_Rio"]["sources"]) == 3
    assert known["AOI_2_Vegas"]["sources"][1]["parts"][0]["uri"].endswith("/train/AOI_2_Vegas/")
    assert (known["mine"]["size"], known["mine"]["md5_known"], known["mine"]["built_in"]) == (None, False, False)
    assert "secret" not in json.dumps(answer)


def test_an_empty_file_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "aois.yaml").write_text("# none yet\n")
    assert load_catalog(tmp_path) == dict(BUILT_IN)


def test_the_catalogue_imports_nothing_heavy() -> None:
    code = (
        "import sys, footprint_pipeline.spacenet.catalog\n"
        "heavy = {'numpy', 'pandas', 'geopandas', 'boto3', 'botocore', 'rasterio', 'shapely', 'dagster', 'keras'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
