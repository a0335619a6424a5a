from pathlib import Path, PurePosixPath

import pytest

from footprint_pipeline.errors import SourceError
from footprint_pipeline.spacenet.areas import Patterns
from footprint_pipeline.spacenet.layout import aoi_name, discover, natural_key, role, tile_id, tile_of
from footprint_pipeline_tests.spacenet.conftest import write_csv, write_spacenet1


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("3band_AOI_1_RIO_img1000", "AOI_1_RIO_img1000"),
        ("Geo_AOI_1_RIO_img1000", "AOI_1_RIO_img1000"),
        ("3band_013022223130_Public_img1", "013022223130_Public_img1"),
        ("013022223130_Public_img1_Geo", "013022223130_Public_img1"),
        ("RGB-PanSharpen_AOI_2_Vegas_img1", "AOI_2_Vegas_img1"),
        ("buildings_AOI_2_Vegas_img1", "AOI_2_Vegas_img1"),
        ("SN2_buildings_train_AOI_2_Vegas_PS-RGB_img5632", "AOI_2_Vegas_img5632"),
        ("SN2_buildings_train_AOI_2_Vegas_geojson_buildings_img5632", "AOI_2_Vegas_img5632"),
        ("AOI_1_RIO_img1000", "AOI_1_RIO_img1000"),
    ],
)
def test_the_tile_id_is_the_summary_tables_image_id(stem: str, expected: str) -> None:
    assert tile_id(stem) == expected


def test_names_sort_as_people_count() -> None:
    names = ["a_img10", "a_img2", "013_Public_img3", "a_img1"]
    assert sorted(names, key=natural_key) == ["013_Public_img3", "a_img1", "a_img2", "a_img10"]


def test_spacenet1_as_it_was_first_published(tmp_path: Path) -> None:
    root = write_spacenet1(tmp_path / "AOI_1_Rio" / "processedData", 11)
    touch(root / "3band", "._3band_AOI_1_RIO_img1.tif", ".DS_Store", "3band_AOI_1_RIO_img1.tif.aux.xml")
    for folder in (tmp_path, tmp_path / "AOI_1_Rio", root):
        layout = discover(folder)
        assert (layout.aoi, layout.kind, layout.folder) == ("AOI_1_Rio", "spacenet1", folder)
        assert [tile.tile_id for tile in layout.tiles] == [f"AOI_1_RIO_img{number}" for number in range(1, 12)]
        assert layout.tiles[9].image == root / "3band" / "3band_AOI_1_RIO_img10.tif"
        assert layout.tiles[9].geojson == root / "vectordata" / "geojson" / "Geo_AOI_1_RIO_img10.geojson"
        assert layout.summary == root / "vectordata" / "summarydata" / "AOI_1_RIO_polygons_solution_3band.csv"
        assert layout.complete
        assert layout.tile_ids == {tile.tile_id for tile in layout.tiles}


def test_first_limits_the_tiles_but_not_what_is_known(tmp_path: Path) -> None:
    layout = discover(write_spacenet1(tmp_path, 4))
    assert [tile.tile_id for tile in layout.first(2).tiles] == ["AOI_1_RIO_img1", "AOI_1_RIO_img2"]
    assert layout.first(2).tile_ids == layout.tile_ids
    assert layout.first(None) is layout
    assert len(layout.first(9).tiles) == 4


def test_spacenet1_tarballs(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "3band/3band_AOI_1_RIO_img1.tif",
        "8band/8band_AOI_1_RIO_img1.tif",
        "geojson/Geo_AOI_1_RIO_img1.geojson",
    )
    layout = discover(tmp_path)
    assert (layout.aoi, layout.kind, layout.summary) == ("AOI_1_Rio", "spacenet1", None)
    assert layout.tiles[0].geojson == tmp_path / "geojson" / "Geo_AOI_1_RIO_img1.geojson"


def test_spacenet2_tarball_ignores_other_bands_and_the_test_set(tmp_path: Path) -> None:
    touch(
        tmp_path / "AOI_2_Vegas_Train",
        "RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_img1.tif",
        "MUL/MUL_AOI_2_Vegas_img1.tif",
        "MUL-PanSharpen/MUL-PanSharpen_AOI_2_Vegas_img1.tif",
        "PAN/PAN_AOI_2_Vegas_img1.tif",
        "geojson/buildings/buildings_AOI_2_Vegas_img1.geojson",
        "summaryData/AOI_2_Vegas_Train_Building_Solutions.csv",
    )
    touch(tmp_path / "AOI_2_Vegas_Test_public", "RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_img7.tif")
    layout = discover(tmp_path)
    assert (layout.aoi, layout.kind) == ("AOI_2_Vegas", "spacenet2")
    assert [tile.tile_id for tile in layout.tiles] == ["AOI_2_Vegas_img1"]
    assert layout.tiles[0].geojson is not None
    assert layout.summary == tmp_path / "AOI_2_Vegas_Train/summaryData/AOI_2_Vegas_Train_Building_Solutions.csv"


def test_spacenet2_loose_files(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "PS-RGB/SN2_buildings_train_AOI_5_Khartoum_PS-RGB_img5.tif",
        "PS-MS/SN2_buildings_train_AOI_5_Khartoum_PS-MS_img5.tif",
        "geojson_buildings/SN2_buildings_train_AOI_5_Khartoum_geojson_buildings_img5.geojson",
        "geojson_buildings/SN2_buildings_train_AOI_5_Khartoum_geojson_buildings_img6.geojson",
    )
    layout = discover(tmp_path)
    assert (layout.aoi, layout.kind) == ("AOI_5_Khartoum", "spacenet2-loose")
    assert [(tile.tile_id, tile.geojson is not None) for tile in layout.tiles] == [("AOI_5_Khartoum_img5", True)]
    assert [path.name[-12:] for path in layout.stray_geojson] == ["img6.geojson"]


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("imagery/{tile}.tif", "imagery/a.1.tif", "a.1"),
        ("imagery/{tile}.tif", "town/2024/imagery/a.tif", "a"),
        ("imagery/{tile}.tif", "my-imagery/a.tif", None),
        ("imagery/{tile}.tif", "imagery/deeper/a.tif", None),
        ("imagery/{tile}.tif", "imagery/A.TIF", "A"),
        ("imagery/{tile}.TIFF", "imagery/a.tiff", "a"),
        ("imagery/{tile}.tif", "Imagery/a.tif", None),
        ("imagery/{tile}.tif", "imagery/a.tiff", None),
        ("Düne/{tile}.tif", "Du\u0308ne/Du\u0308ne 1.tif", "Düne 1"),  # as a Mac writes it
        ("Du\u0308ne/{tile}.tif", "Düne/Düne 1.tif", "Düne 1"),
        ("imagery/{tile}.tif", "imagery/axtif", None),
        ("imagery/{tile}.tif", "imagery/.a.tif", None),
        ("{tile}/rgb_*.tif", "block 7/rgb_2024.tif", "block 7"),
        ("{tile}/{tile}.tif", "x/7/7.tif", "7"),
        ("{tile}/{tile}.tif", "x/7/8.tif", None),
        ("{tile}_rgb.tif", "3band_AOI_1_RIO_img5_rgb.tif", "AOI_1_RIO_img5"),  # as the summary table has it
    ],
)
def test_patterns(pattern: str, path: str, expected: str | None) -> None:
    patterns = Patterns(pattern, summary="labels.csv")
    assert role(PurePosixPath(path), patterns) == ("tile" if expected else None)
    if expected:
        assert tile_of(PurePosixPath(path), patterns) == expected
    assert role(PurePosixPath("x/labels.csv"), patterns) == "summary"


def test_images_and_labels_meet_however_their_letters_are_written(tmp_path: Path) -> None:
    decomposed, as_usual = "Du\u0308ne", "Düne"
    own = touch(tmp_path / "own", f"imagery/{decomposed}.tif", f"labels/{as_usual}.geojson")
    (tile,) = discover(own, patterns=Patterns("imagery/{tile}.tif", "labels/{tile}.geojson")).tiles
    assert (tile.tile_id, tile.image.name) == (as_usual, f"{decomposed}.tif")
    assert tile.geojson == own / "labels" / f"{as_usual}.geojson"
    theirs = touch(tmp_path / "theirs", f"3band/3band_{decomposed}.tif", f"geojson/Geo_{as_usual}.geojson")
    (tile,) = discover(theirs).tiles
    assert (tile.tile_id, tile.geojson is not None) == (as_usual, True)


def test_tiles_that_the_source_has_elsewhere_are_not_stray(tmp_path: Path) -> None:
    touch(tmp_path, "3band/3band_x_img1.tif", *(f"geojson/Geo_x_img{number}.geojson" for number in (1, 2, 3)))
    assert [path.stem for path in discover(tmp_path).stray_geojson] == ["Geo_x_img2", "Geo_x_img3"]
    layout = discover(tmp_path, tile_ids=frozenset({"x_img2"}))
    assert layout.tile_ids == {"x_img1", "x_img2"}
    assert [path.stem for path in layout.stray_geojson] == ["Geo_x_img3"]
    layout = discover(tmp_path, complete=False)
    assert (layout.complete, layout.stray_geojson) == (False, ())


def test_patterns_that_match_nothing_or_twice_are_explained(tmp_path: Path) -> None:
    touch(tmp_path, "a/imagery/1.tif", "b/imagery/1.tif", "labels/1.geojson")
    with pytest.raises(SourceError, match=r"are both tile '1'") as caught:
        discover(tmp_path, patterns=Patterns("imagery/{tile}.tif", "labels/{tile}.geojson"))
    assert "'images' in aois.yaml" in caught.value.fix
    patterns = Patterns("a/imagery/{tile}.tif", "labels/{tile}.geojson")
    assert discover(tmp_path, patterns=patterns).tiles[0].geojson == tmp_path / "labels" / "1.geojson"
    with pytest.raises(SourceError, match=r"1 tiles and no labels\. Looked for all\.csv"):
        discover(tmp_path, patterns=Patterns("a/imagery/{tile}.tif", summary="all.csv"))


def test_two_label_files_of_one_tile_are_refused_where_they_count(tmp_path: Path) -> None:
    touch(tmp_path, "3band/3band_x_img1.tif", "geojson/Geo_x_img1.geojson", "geojson_buildings/Geo_x_img1.geojson")
    with pytest.raises(SourceError, match=r"are both labels of tile 'x_img1'") as caught:
        discover(tmp_path)
    assert "geojson_buildings/Geo_x_img1.geojson" in caught.value.problem.replace("\\", "/")
    assert caught.value.fix == "Leave one of the files out."
    write_csv(tmp_path / "summaryData" / "x.csv", [])
    assert discover(tmp_path).summary == tmp_path / "summaryData" / "x.csv"

    own = touch(tmp_path / "own", "1.tif", "labels/1.geojson", "labels_old/1.geojson")
    with pytest.raises(SourceError, match="are both labels of tile '1'") as caught:
        discover(own, patterns=Patterns("{tile}.tif", "{tile}.geojson"))
    assert "'labels' in aois.yaml" in caught.value.fix
    layout = discover(own, patterns=Patterns("{tile}.tif", "labels/{tile}.geojson"))
    assert layout.tiles[0].geojson == own / "labels" / "1.geojson"


def test_the_name_comes_from_what_is_given_the_folder_or_the_tiles(tmp_path: Path) -> None:
    plain = touch(tmp_path / "my town (2)", "3band/3band_x_img1.tif", "geojson/Geo_x_img1.geojson")
    assert discover(plain).aoi == "my_town_2"
    assert discover(plain, aoi="town").aoi == "town"
    assert aoi_name(["nothing", "x/AOI_21_ACCRA_img3", "AOI_2_Vegas"]) == "AOI_21_Accra"
    assert aoi_name(["SN2_buildings_train_AOI_4_Shanghai.tar.gz"]) == "AOI_4_Shanghai"
    assert aoi_name(["SN2_buildings_train_AOI_2_Vegas_geojson_buildings_img3"]) == "AOI_2_Vegas"
    assert aoi_name(["AOI_2_Vegas_old"]) == "AOI_2_Vegas"
    assert aoi_name(["AOI_9_New_York"]) == aoi_name(["AOI_9_NEW_YORK_img3"]) == "AOI_9_New_York"
    assert aoi_name(["AOI_9_New_Delhi_Train"]) == "AOI_9_New_Delhi"
    assert aoi_name(["AOI_9_Town_RGB_2"]) == aoi_name(["AOI_9_Town_2nd"]) == "AOI_9_Town"
    assert aoi_name(["AOI_9_Trainville_Park"]) == "AOI_9_Trainville_Park"
    assert aoi_name(["nothing"]) is None
    with pytest.raises(SourceError, match="cannot be the name of an AOI"):
        discover(plain, aoi="a b")


def test_what_is_no_spacenet_folder_says_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere: does not exist"):
        discover(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="is a file, not a folder"):
        discover(touch(tmp_path, "file.tif") / "file.tif")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"no SpaceNet tiles\. Looked for 3band/3band_\*\.tif .* found nothing"):
        discover(tmp_path / "empty")
    holiday = touch(tmp_path / "holiday", "a.jpg", "b.jpg", "notes.txt")
    with pytest.raises(SourceError, match=r"found 3 files: 2 \.jpg, 1 \.txt"):
        discover(holiday)
    only_8 = touch(tmp_path / "bands", "8band/8band_AOI_1_RIO_img1.tif", "geojson/Geo_AOI_1_RIO_img1.geojson")
    with pytest.raises(SourceError, match="8band has no RGB tiles"):
        discover(only_8)


def test_tiles_without_labels_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "3band/3band_AOI_1_RIO_img1.tif", "3band/3band_AOI_1_RIO_img2.tif")
    with pytest.raises(SourceError, match=r"2 tiles and no labels\. Looked for .*geojson/\*\.geojson"):
        discover(tmp_path)


def test_several_places_or_tables_are_not_mixed(tmp_path: Path) -> None:
    write_spacenet1(tmp_path / "a", 1)
    write_spacenet1(tmp_path / "b", 1)
    with pytest.raises(SourceError, match="several places") as caught:
        discover(tmp_path)
    assert "a/processedBuildingLabels/3band" in caught.value.problem.replace("\\", "/")
    write_csv(tmp_path / "a" / "processedBuildingLabels" / "summaryData" / "old_3band.csv", [])
    with pytest.raises(SourceError, match=r"several files of all labels .*old_3band\.csv"):
        discover(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "aoi", "kind", "tiles"),
    [
        ("accra", "AOI_21_Accra", "spacenet1", 49),
        ("rio", "AOI_1_Rio", "spacenet1", 12),
        ("vegas", "AOI_2_Vegas", "spacenet2", 5),
    ],
)
def test_real_folders(real_data: Path, name: str, aoi: str, kind: str, tiles: int) -> None:
    layout = discover(real_data / name)
    assert (layout.aoi, layout.kind, len(layout.tiles)) == (aoi, kind, tiles)
    assert layout.summary is not None
    assert all(tile.geojson is not None and tile.image.is_file() for tile in layout.tiles)


def test_folders_that_are_links_are_looked_into_once_and_loops_end(tmp_path: Path) -> None:
    root = write_spacenet1(tmp_path / "elsewhere")
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("3band", "vectordata"):
        (linked / name).symlink_to(root / name)
    (linked / "back").symlink_to(linked)
    (linked / "twice").symlink_to(root / "3band")
    assert len(discover(linked).tiles) == len(discover(root).tiles) == 3


def test_two_images_of_one_tile_are_refused(tmp_path: Path) -> None:
    root = write_spacenet1(tmp_path)
    one = next((root / "3band").glob("*img1.tif"))
    one.with_name(one.name.removeprefix("3band_")).write_bytes(one.read_bytes())
    with pytest.raises(SourceError, match=r"are both tile 'AOI_1_RIO_img1'"):
        discover(root)
