import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import openvino as ov
import pytest

from footprint_pipeline.errors import ModelError
from footprint_pipeline.footprints.domain import DomainReference
from footprint_pipeline.footprints.normalization import PERCENTILES, UINT8, Normalization
from footprint_pipeline.footprints.runtime import Runtime, has_bfloat16
from footprint_pipeline.footprints.spec import ModelSpec, calibrated
from footprint_pipeline_tests.footprints.red_city import write_model


def test_eight_bit_is_divided_by_255_and_comes_back_unchanged() -> None:
    image = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)
    assert np.array_equal(UINT8.apply(image), image.astype(np.float32) / 255)
    assert UINT8.to_uint8(image) is image


def test_deeper_imagery_is_stretched_by_band_and_clipped() -> None:
    stretch = Normalization(low=(100, 0, 0), high=(1100, 2000, 500))
    image = np.array([[[50, 1000, 5000], [600, 0, 250]]], np.uint16)
    assert stretch.apply(image)[0] == pytest.approx(np.array([[0, 0.5, 1], [0.5, 0, 0.5]]), abs=1e-6)
    assert stretch.to_uint8(image)[0].tolist() == [[0, 128, 255], [128, 0, 128]]
    assert stretch.apply(image).dtype == np.float32


def test_a_band_without_span_does_not_divide_by_zero() -> None:
    assert np.isfinite(Normalization(low=(5, 5, 5), high=(5, 5, 5)).apply(np.full((2, 2, 3), 5, np.uint16))).all()


@pytest.mark.parametrize(("exponent", "gamma"), [(1.0, 1.0), (2.0, 1.513), (3.0, 2.2)])
def test_imagery_that_tells_of_light_as_it_is_comes_out_as_bright_as_that_for_screens(
    exponent: float, gamma: float
) -> None:
    light = np.random.default_rng(0).uniform(0, 1, (100, 100, 3)) ** exponent
    image = np.rint(100 + 1800 * light).astype(np.uint16)
    stretch = Normalization.from_percentiles(np.percentile(image.reshape(-1, 3), PERCENTILES, axis=0))
    assert stretch.gamma == pytest.approx(gamma, abs=0.03)
    seen = stretch.apply(image)
    assert (seen.min(), seen.max()) == (0.0, 1.0)
    assert np.median(seen) == pytest.approx({1.0: 0.5, 2.0: 0.4, 3.0: 0.125 ** (1 / 2.2)}[exponent], abs=0.02)
    assert np.abs(stretch.to_uint8(image) / 255 - seen).max() < 0.002
    assert Normalization.model_validate_json(stretch.model_dump_json()) == stretch


def test_a_band_of_one_value_does_not_count_for_brightness() -> None:
    values = np.array([[100, 7, 100], [500, 7, 500], [1100, 7, 1100]])
    assert Normalization.from_percentiles(values).gamma == 1.0
    assert Normalization.from_percentiles(np.full((3, 3), 7)) == Normalization(low=(7, 7, 7), high=(8, 8, 8))


def test_spec_survives_the_disk(tmp_path: Path) -> None:
    domain = DomainReference.of([np.arange(48).reshape(3, 16), np.ones((3, 16), int)], gsds_m=[0.3, 0.5])
    write_model(tmp_path, metrics={"f1": 0.7}, min_area_m2=4.0, domain=domain)
    spec = ModelSpec.read(tmp_path)
    assert spec.write(tmp_path / "copy") == tmp_path / "copy" / "spec.json"
    assert ModelSpec.read(tmp_path / "copy") == spec
    assert spec.domain == domain


def test_a_missing_or_broken_spec_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"spec\.json: missing"):
        ModelSpec.read(tmp_path)
    (tmp_path / "spec.json").write_text('{"model_name": 3}')
    with pytest.raises(ModelError, match=r"spec\.json: model_name: .*string"):
        ModelSpec.read(tmp_path)


def test_the_runtime_answers_probabilities_of_any_size(runtime: Runtime) -> None:
    image = np.zeros((2, 48, 32, 3), np.float32)
    image[0, :, :16, 0] = 1.0
    probability = runtime(image)
    assert probability.shape == (2, 48, 32, 1)
    assert probability.dtype == np.float32
    assert (probability[0, :, :16] > 0.99).all()
    assert (probability[0, :, 16:] < 0.01).all()
    assert (probability[1] < 0.01).all()


def test_precision_is_the_specs_unless_asked_otherwise(tmp_path: Path) -> None:
    floats = "bf16" if has_bfloat16() else "f32"
    write_model(tmp_path, precision="f32")
    assert Runtime(tmp_path).precision == "f32"
    assert Runtime(tmp_path, precision="bf16").precision == floats
    with pytest.raises(ModelError, match=r"OpenVINO cannot load model_int8\.xml"):
        Runtime(tmp_path, precision="int8")


def test_a_spec_from_before_there_were_precisions_heads_and_seeds_is_served_as_ever(tmp_path: Path) -> None:
    write_model(tmp_path)
    written = json.loads((tmp_path / "spec.json").read_text())
    for name in ("precision", "heads", "seed_level", "flips", "domain"):
        del written[name]
    (tmp_path / "spec.json").write_text(json.dumps(written))
    old = Runtime(tmp_path)
    assert (old.spec.heads, old.spec.seed_level, old.spec.flips) == (("building",), None, 1)
    assert old.spec.domain is None
    assert old.precision == ("bf16" if has_bfloat16() else "f32")
    assert old(np.zeros((1, 16, 16, 3), np.float32)).shape == (1, 16, 16, 1)


def test_a_broken_model_names_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path)
    weights = (tmp_path / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(weights[:5])
    with pytest.raises(ModelError, match=r"OpenVINO cannot load model\.xml \(Incorrect weights in bin file!\)"):
        Runtime(tmp_path)
    (tmp_path / "model.xml").write_text("<net")
    with pytest.raises(ModelError, match=r"OpenVINO cannot load model\.xml"):
        Runtime(tmp_path)
    monkeypatch.setattr(ov.Core, "read_model", Mock(side_effect=RuntimeError))
    with pytest.raises(ModelError, match=r"OpenVINO cannot load model\.xml \(RuntimeError\)"):
        Runtime(tmp_path)


def test_a_curve_leads_from_what_is_said_to_what_comes_true() -> None:
    said = np.array([0.1, 0.5, 0.6, 0.95], np.float32)
    told = calibrated(said, ((0.5, 0.2), (0.7, 0.4), (0.9, 0.8)))
    assert told == pytest.approx([0.2, 0.2, 0.3, 0.8])
    assert told.dtype == np.float32
    assert calibrated(said, ()) is said
