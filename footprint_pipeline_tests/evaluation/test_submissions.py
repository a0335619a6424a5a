import json
from pathlib import Path

import pytest
import shapely
from click.testing import CliRunner

from footprint_pipeline.cli import main
from footprint_pipeline.errors import LabelError
from footprint_pipeline.evaluation.submissions import SubmissionScore, read_submission, score_submission

HOUSE, SHED = "POLYGON ((0 0, 10 0, 10 10, 0 10, 0 0))", "POLYGON ((20 0, 25 0, 25 5, 20 5, 20 0))"
NOTHING = "POLYGON EMPTY"


def box(left: float, top: float, right: float, bottom: float) -> str:
    return shapely.box(left, top, right, bottom).wkt


def written(path: Path, *rows: tuple[str, int, str], confidence: list[float] | None = None) -> Path:
    lines = ["ImageId,BuildingId,PolygonWKT_Pix" + (",Confidence" if confidence is not None else "")]
    for number, (image, building, polygon) in enumerate(rows):
        sure = "" if confidence is None else f",{confidence[number]}"
        lines.append(f'{image},{building},"{polygon}"{sure}')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def scored(
    folder: Path,
    truth: list[tuple[str, int, str]],
    proposals: list[tuple[str, int, str]],
    *sure: float,
    **options: float,
) -> SubmissionScore:
    there = read_submission(written(folder / "truth.csv", *truth))
    claimed = read_submission(written(folder / "ours.csv", *proposals, confidence=list(sure) or [1.0] * len(proposals)))
    return score_submission(there, claimed, **options)


def counts(score: SubmissionScore) -> list[int]:
    return score.by_image[["tp", "fp", "fn"]].sum().tolist()


def test_one_half_is_enough(tmp_path: Path) -> None:
    assert counts(scored(tmp_path, [("a", 1, HOUSE)], [("a", 1, box(0, 0, 10, 20))])) == [1, 0, 0]
    assert counts(scored(tmp_path, [("a", 1, HOUSE)], [("a", 1, box(0, 0, 10, 20.1))])) == [0, 1, 1]


def test_one_proposal_over_two_buildings_finds_one(tmp_path: Path) -> None:
    truth = [("a", 1, box(0, 0, 10, 10)), ("a", 2, box(10, 0, 20, 10))]
    assert counts(scored(tmp_path, truth, [("a", 1, box(0, 0, 20, 10))])) == [1, 0, 1]


def test_the_surer_proposal_goes_first_and_of_equals_the_earlier(tmp_path: Path) -> None:
    truth = [("a", 1, HOUSE), ("a", 2, box(0, 0, 10, 18))]
    wide, less = ("a", 1, box(0, 0, 10, 13)), ("a", 2, box(0, 0, 10, 8))
    assert counts(scored(tmp_path, truth, [wide, less], 0.5, 0.5)) == [1, 1, 1]
    assert counts(scored(tmp_path, truth, [wide, less], 0.5, 0.6)) == [2, 0, 0]


def test_images_without_buildings_are_judged_too(tmp_path: Path) -> None:
    truth = [("a", -1, NOTHING), ("b", -1, "POLYGON ((0 0, 0 0, 0 0, 0 0))"), ("c", 1, HOUSE)]
    score = scored(tmp_path, truth, [("a", 1, HOUSE), ("b", -1, NOTHING)])
    assert score.by_image[["image", "tp", "fp", "fn"]].to_numpy().tolist() == [
        ["a", 0, 1, 0],
        ["b", 0, 0, 0],
        ["c", 0, 0, 1],
    ]
    assert score.f1 == 0


def test_proposals_on_an_unknown_image_are_false(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    assert counts(scored(tmp_path, [("a", 1, HOUSE)], [("a", 1, HOUSE), ("b", 1, HOUSE)])) == [1, 1, 0]
    assert "not in the truth, such as b" in caplog.text


def test_an_invalid_polygon_is_what_its_ring_encloses(tmp_path: Path) -> None:
    bow_tie = "POLYGON ((0 0, 10 10, 10 0, 0 10, 0 0))"  # two triangles of 25 that touch
    assert counts(scored(tmp_path, [("a", 1, box(0, 0, 5, 10))], [("a", 1, bow_tie)])) == [0, 1, 1]
    assert counts(scored(tmp_path, [("a", 1, bow_tie)], [("a", 1, box(0, 0, 10, 10))])) == [1, 0, 0]


def test_rows_of_the_same_id_are_buildings_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    assert counts(scored(tmp_path, [("a", 1, HOUSE), ("a", 1, SHED)], [("a", 1, HOUSE)])) == [1, 0, 1]
    assert "truth.csv: 1 rows" in caplog.text


def test_small_ones_are_left_out_on_either_side(tmp_path: Path) -> None:
    truth, proposals = [("a", 1, HOUSE), ("a", 2, SHED)], [("a", 1, HOUSE)]
    assert counts(scored(tmp_path, truth, proposals)) == [1, 0, 1]
    assert counts(scored(tmp_path, truth, proposals, min_area_px=30)) == [1, 0, 0]


def test_areas_count_the_same_each_and_sizes_are_told_apart(tmp_path: Path) -> None:
    town = [("AOI_2_Vegas_img1", 1, HOUSE), ("AOI_2_Vegas_img1", 2, SHED), ("AOI_2_Vegas_img7", 1, HOUSE)]
    village = [("AOI_4_Shanghai_img1", 1, HOUSE)]
    score = scored(tmp_path, town + village, [*town[:2], ("AOI_2_Vegas_img7", 1, box(50, 50, 90, 95))])

    assert score.by_aoi[["aoi", "images", "tp", "fp", "fn"]].to_numpy().tolist() == [
        ["AOI_2_Vegas", 2, 2, 1, 1], ["AOI_4_Shanghai", 1, 0, 0, 1],
    ]  # fmt: skip
    assert score.f1 == pytest.approx((4 / 6 + 0) / 2)
    assert score.by_size[["from_px", "tp", "fp", "fn"]].to_numpy().tolist() == [
        [0, 1, 0, 0], [100, 1, 0, 2], [400, 0, 0, 0], [1600, 0, 1, 0],
    ]  # fmt: skip


def test_an_area_with_nothing_in_it_and_nothing_claimed_says_nothing(tmp_path: Path) -> None:
    town, empty = ("RGB-PanSharpen_AOI_2_Vegas_img1", 1, HOUSE), ("RGB-PanSharpen_AOI_3_Paris_img1", -1, NOTHING)
    score = scored(tmp_path, [town, empty], [town, empty])
    assert score.by_aoi["aoi"].tolist() == ["AOI_2_Vegas", "AOI_3_Paris"]
    assert score.f1 == 1.0
    assert scored(tmp_path, [town, empty], [town, (empty[0], 1, HOUSE)]).f1 == 0.5


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "cannot be read as CSV"),
        ("ImageId,BuildingId\na,1\n", "no column PolygonWKT_Pix"),
        (f'ImageId,BuildingId,PolygonWKT_Pix\na,1,"{HOUSE}",0.5\n', "rows have more fields than its header"),
        ('ImageId,BuildingId,PolygonWKT_Pix\na,1,"POLYGON ((0 0, nan 1, 1 1, 0 0))"\n', "row 2: .* is no polygon"),
        ('ImageId,BuildingId,PolygonWKT_Pix\na,-1,POLYGON EMPTY\na,1,"POINT (1 1)"\n', "row 3: 'POINT"),
        ("ImageId,BuildingId,PolygonWKT_Pix\na,1,\n", "row 2"),
        (f'ImageId,BuildingId,PolygonWKT_Pix,Confidence\na,1,"{HOUSE}",high\n', "row 2: its Confidence"),
    ],
)
def test_a_table_that_cannot_be_scored_says_where(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(LabelError, match=told):
        read_submission(tmp_path / "t.csv")
    with pytest.raises(LabelError, match="cannot be read"):
        read_submission(tmp_path / "absent.csv")


def test_the_command_prints_a_table_for_people_and_an_object_for_programs(tmp_path: Path) -> None:
    truth = written(tmp_path / "truth.csv", ("AOI_2_Vegas_img1", 1, HOUSE), ("AOI_2_Vegas_img1", 2, SHED))
    ours = written(tmp_path / "ours.csv", ("AOI_2_Vegas_img1", 1, HOUSE), confidence=[0.7])
    told = ["score", "--truth", str(truth), "--proposals", str(ours)]

    people = CliRunner().invoke(main, told).output
    program = json.loads(CliRunner().invoke(main, [*told, "--min-area", "30", "--json"]).stdout.splitlines()[-1])

    assert "mean over areas)  0.6667" in people
    assert "AOI_2_Vegas" in people
    assert program["building_f1"] == 1.0
    assert [row["to_px"] for row in program["by_size"]] == [100.0, 400.0, 1600.0, None]
    assert CliRunner().invoke(main, ["score", "--truth", str(tmp_path / "no.csv"), *told[3:]]).exit_code == 1
