import cv2
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from footprint_pipeline.evaluation import reports
from footprint_pipeline.evaluation.scoring import Answer, TilePrediction
from footprint_pipeline.evaluation.tolerance import median_then_std, sweep


def decoded(png: bytes) -> np.ndarray:
    assert png.startswith(b"\x89PNG")
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def prediction(height: int = 40, width: int = 60) -> TilePrediction:
    truth = np.zeros((height, width), np.uint8)
    truth[10:30, 10:30] = 1
    probability = np.roll(truth, 5, axis=1) * np.float32(0.9)
    image = np.full((height, width, 3), 100, np.uint8)
    answer = Answer(probability, None, (height, width), 0.5)
    return TilePrediction("a", "Town", image, truth, np.ones((height, width), bool), probability, answer)


def test_the_overlay_paints_each_kind_of_pixel() -> None:
    image = np.array([[[100, 100, 100], [200, 0, 0]], [[0, 200, 0], [10, 20, 30]]], np.uint8)
    painted = reports.overlay(image, np.array([[1, 0], [1, 0]]), np.array([[1, 1], [0, 0]]))
    share = 0.45
    for (row, column), colour in (((0, 0), reports.FOUND), ((0, 1), reports.WRONG), ((1, 0), reports.MISSED)):
        expected = (1 - share) * image[row, column] + share * np.array(colour)
        assert painted[row, column].tolist() == pytest.approx(expected.tolist(), abs=1)
    assert painted[1, 1].tolist() == [10, 20, 30]
    assert image[0, 0].tolist() == [100, 100, 100]
    assert painted.dtype == np.uint8


def test_found_is_green_wrong_is_red_missed_is_blue() -> None:
    assert [int(np.argmax(colour)) for colour in (reports.FOUND, reports.WRONG, reports.MISSED)] == [1, 0, 2]


def test_a_contact_sheet_holds_three_panels_a_tile() -> None:
    tiles = [prediction(), prediction(40, 40)]
    sheet = decoded(reports.contact_sheet(tiles, tolerance=0.5, height=80))
    assert sheet.shape == (2 * 84, 3 * 120, 3)
    assert (sheet[40, 2:10] == 100).all()
    overlay = sheet[:80, 240:360]
    assert np.argmax(overlay[40, 2 * 20]) == 1
    assert np.argmax(overlay[40, 2 * 32]) == 0
    assert np.argmax(overlay[40, 2 * 12]) == 2
    assert not sheet[84 + 40, 250:].any()  # the narrower row is filled up
    assert (tiles[0].image == 100).all()


def test_a_sheet_of_no_tiles_is_still_a_picture() -> None:
    assert decoded(reports.contact_sheet([], tolerance=0.5)).size > 0


def test_plots_are_pictures_and_leave_no_figure_open() -> None:
    rng = np.random.default_rng(0)
    table = sweep(rng.random((6, 20, 20), np.float32), rng.integers(0, 2, (6, 20, 20), np.uint8))
    box = decoded(reports.box_plot(table, median_then_std(table)))
    assert box.shape[1] / box.shape[0] == pytest.approx(12 / 4.8, rel=0.01)
    assert box.shape[1] > 800
    assert len(np.unique(box.reshape(-1, 3), axis=0)) > 20
    history = [{"loss": 1.0, "f1": 0.1, "val_loss": 1.1, "val_f1": 0.1}, {"loss": 0.5, "f1": 0.6}]
    assert decoded(reports.learning_curves(history)).shape[1] > 800
    assert plt.get_fignums() == []


def test_a_png_keeps_colours_in_order() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    assert np.array_equal(decoded(reports.encode_png(image)), image)


def test_a_preview_shows_images_and_masks_side_by_side() -> None:
    mask = np.zeros((10, 10), np.uint8)
    mask[:, 5:] = 1
    strip = decoded(reports.preview([np.full((20, 40, 3), 77, np.uint8), mask, mask * 200], height=20))
    assert strip.shape == (20, 40 + 20 + 20, 3)
    assert (strip[:, :40] == 77).all()
    assert strip[10, 42].tolist() == [0, 0, 0]
    assert strip[10, 58].tolist() == [255, 255, 255]
    assert strip[10, 78].tolist() == [200, 200, 200]


def test_a_markdown_table_keeps_whole_numbers_whole() -> None:
    frame = pd.DataFrame({"aoi": ["Town", "Rio"], "tiles": [3, 12], "f1": [0.5, 2 / 3]})
    assert reports.markdown_table(frame).splitlines() == [
        "| aoi | tiles | f1 |",
        "| --- | --- | --- |",
        "| Town | 3 | 0.500 |",
        "| Rio | 12 | 0.667 |",
    ]
    assert reports.markdown_table(frame[["tiles", "f1"]]).splitlines()[2] == "| 3 | 0.500 |"
    assert reports.markdown_table(frame[["f1"]].astype(np.float32)).splitlines()[3] == "| 0.667 |"
