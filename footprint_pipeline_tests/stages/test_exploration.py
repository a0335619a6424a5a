"""The dataset report, from prepared AOIs on disk to a page."""

import base64
import logging
import re
import shutil
import socket
from html.parser import HTMLParser
from pathlib import Path

import cv2
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest

from footprint_pipeline.commands.explore import explore
from footprint_pipeline.dataset.label_counts import label_counts_path, read_label_counts, write_label_counts
from footprint_pipeline.dataset.splits import digest
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.lake import Lake
from footprint_pipeline.settings import Settings
from footprint_pipeline.stages.exploration import DatasetReport, log_report, write_report
from footprint_pipeline.stages.scoring import load_manifest
from footprint_pipeline_tests.stages.prepared import AOI, TILES, prepare_city

TITLES = ["Sizes of buildings", "Tiles on the ground", "Buildings a tile", "Labels on the imagery",
          "A sample of each size class", "Quality of the labels"]  # fmt: skip
PICTURES = ["colours", "building_sizes", "map", "buildings_per_tile", "examples"]
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """A page that closes what it opens; its headings, images and addresses."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [given[name] for name in ("src", "href") if given.get(name)]
        self.ids += [given["id"]] if given.get("id") else []
        if tag == "img":
            self.images.append(given)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings.append(data)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    prepare_city(home)
    return home


@pytest.fixture(scope="module")
def report(home: Path) -> DatasetReport:
    return write_report(Lake(home), [AOI])


def test_one_aoi_gives_one_self_contained_page(home: Path, report: DatasetReport) -> None:
    assert report.path == Lake(home).aoi(AOI).folder / "report.html"
    page = Page(report.path)
    assert page.headings == ["Summary", "Colours", AOI, *TITLES]
    assert not re.search(r"https?://|//[a-z]", re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page.text))
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address.startswith("#")} == set(page.ids)
    for image in page.images:
        png = base64.b64decode(str(image["src"]).partition(",")[2])
        pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape[:2] == (int(str(image["height"])), int(str(image["width"])))
        assert len(str(image["alt"])) > 30
        assert "nan" not in str(image["alt"])
    assert [path for path in report.path.parent.iterdir() if path.name.startswith(".")] == []


def test_the_report_says_what_the_tables_hold(home: Path, report: DatasetReport) -> None:
    folder = Lake(home).aoi(AOI)
    polygons, manifest = gpd.read_parquet(folder.polygons), pd.read_parquet(folder.manifest)
    numbers = report.numbers(AOI)
    assert numbers["tiles"] == TILES
    assert numbers["buildings"] == len(polygons)
    assert numbers["area_m2_median"] == pytest.approx(polygons["area_m2"].median())
    assert sum(report.classes[AOI].values()) == len(polygons)
    assert numbers["buildings.X-small"] == ((polygons["area_sqft"] >= 10) & (polygons["area_sqft"] < 1000)).sum()
    assert report.split_digests[AOI] == digest(manifest)
    assert f"{len(polygons):,}" in report.path.read_text(encoding="utf-8")
    names = [picture.name for picture in report.pictures]
    assert names[: len(PICTURES)] == PICTURES
    assert {"labels_x_small", "labels_small"} <= set(names)
    assert len(set(names)) == len(names)
    assert all(len(picture.png) < 400_000 and picture.width <= 1080 for picture in report.pictures)


@pytest.mark.parametrize(("dtype", "bits"), [("int16", "16 (10 used)"), ("float32", "32")])
def test_pixels_of_any_type_are_reported(tmp_path: Path, dtype: str, bits: str) -> None:
    prepare_city(tmp_path, dtype=dtype)
    assert f'<th scope="row">bits</th><td>{bits}</td>' in Page(write_report(Lake(tmp_path), []).path).text


def test_an_area_named_twice_counts_once(home: Path) -> None:
    assert len(load_manifest(Lake(home), [AOI, AOI])) == TILES


def test_several_aois_share_a_page_also_one_of_a_single_tile_without_buildings(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "lake", tmp_path / "lake")
    town = Lake(tmp_path).aoi("Town")
    shutil.copytree(Lake(home).aoi(AOI).folder, town.folder)
    gpd.read_parquet(town.tiles).iloc[:1].to_parquet(town.tiles)
    gpd.read_parquet(town.polygons).iloc[:0].to_parquet(town.polygons)
    pd.read_parquet(town.manifest).iloc[:1].to_parquet(town.manifest)
    rejected = {"file": "f", "row": [1, 2, 3], "tile_id": "t", "reason": ["odd", "odd", "line"], "text": ""}
    pd.DataFrame(rejected).to_csv(town.rejected_labels, index=False)
    counts = label_counts_path(town)
    write_label_counts(read_label_counts(counts).model_copy(update={"covered": 5}), counts)
    Lake(tmp_path).aoi(AOI).rejected_labels.unlink()

    answer = explore(Settings(home=tmp_path), aois=(), out=None)
    assert answer["report"] == str(tmp_path / "report.html")
    assert list(answer["aois"]) == [AOI, "Town"]
    assert answer["_lines"][0].startswith(f"{AOI}: {TILES} tiles, ")
    assert answer["aois"]["Town"]["tiles"] == 1
    assert "area_m2_median" not in answer["aois"]["Town"]
    page = Page(tmp_path / "report.html")
    assert page.headings == ["Summary", "Colours", AOI, *TITLES, "Town", *[t for t in TITLES if "sample" not in t]]
    assert "There is no building to show." in page.text
    assert '<th scope="row">were dropped: within another one, or listed twice</th><td>5</td>' in page.text
    assert '<th scope="row">were left out: odd</th><td>2</td>' in page.text


def test_an_aoi_that_is_not_prepared_is_named_with_a_way_out(home: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=rf"AOI_9_Mine is not prepared: tiles.parquet, [^\n]*\n.*prepared are {AOI}"):
        write_report(Lake(home), [AOI, "AOI_9_Mine"])
    with pytest.raises(DatasetError, match=r"No AOI is prepared in .*\n.*Prepare one"):
        write_report(Lake(tmp_path), [])
    shutil.copytree(home / "lake", tmp_path / "lake")
    folder = Lake(tmp_path).aoi(AOI)
    folder.polygons.unlink()
    (folder.folder / "report.html").write_text("the former one")
    with pytest.raises(DatasetError, match=f"{AOI} is not prepared: building_polygons.parquet is not there"):
        write_report(Lake(tmp_path), [AOI])
    assert (folder.folder / "report.html").read_text() == "the former one"


def test_a_tracking_server_that_is_away_costs_a_warning_and_no_report(
    report: DatasetReport, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://reader:secret@127.0.0.1:{unused.getsockname()[1]}"
        with caplog.at_level(logging.WARNING):
            assert log_report(Settings(home=tmp_path, tracking_uri=uri), report) is None
    assert f"The report on {AOI} is written, but MLflow" in caplog.text
    assert "secret" not in caplog.text
    assert report.path.exists()
