"""The whole chain for real: a tiny city, Dagster, an MLflow server, the registry, the service, HTTP."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import dagster as dg
import geopandas as gpd
import numpy as np
import pytest
import requests
from mlflow import MlflowClient

import footprint_pipeline
from footprint_pipeline.errors import NoSuchVersionError, RegistryError
from footprint_pipeline.footprints.mercator import tile_at, to_wgs84
from footprint_pipeline.local_service import running_service
from footprint_pipeline.registry import Registry
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.synthetic.city import CitySummary
from footprint_pipeline.stages.weights import find_weights
from serving.champion import LateRegistry, told_version

from .conftest import Footprint, Outcome, clean_environment

pytestmark = pytest.mark.slow

QUICK = Path(footprint_pipeline.__file__).parents[1] / "configs" / "quick.yaml"
EPOCHS = 30
TRAINING = (
    "--spec", QUICK, "--width", 8, "--size", 64, "--batch-size", 16, "--epochs", EPOCHS, "--max-minutes", 60,
    "--chips-per-epoch", 96, "--precision", "float32",
)  # fmt: skip
ASSETS = {
    "image_tiles", "building_polygons", "mask_tiles", "split_manifests", "dataset_report",
    "trained_unet", "tolerance_sweep", "test_evaluation", "registered_model",
}  # fmt: skip


@dataclass(frozen=True)
class Chain:
    """A chain that ran once."""

    home: Path
    mlflow_url: str
    outcome: Outcome

    @property
    def env(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_URI": self.mlflow_url}

    @property
    def settings(self) -> Settings:
        return Settings(home=self.home, tracking_uri=self.mlflow_url)


@pytest.fixture(scope="module")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server that keeps artifacts itself."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [
                Path(sys.executable).with_name("mlflow"), "server", "--port", str(port), "--workers", "1",
                "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", folder / "kept",
            ],
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                if requests.get(f"{url}/health", timeout=2).ok:
                    break
            except requests.RequestException:
                time.sleep(0.5)
        else:
            pytest.fail(f"MLflow did not start: {(folder / 'server.log').read_text()[-2000:]}")
        yield url
    finally:
        subprocess.run(["pkill", "-TERM", "-s", str(server.pid)], check=False)
        server.wait(30)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, city: CitySummary, mlflow_url: str, footprint: Footprint) -> Chain:
    home = tmp_path_factory.mktemp("home")
    outcome = footprint(
        "run", "--source", city.folder, *TRAINING, "--home", home, "--json", env={"MLFLOW_TRACKING_URI": mlflow_url}
    )
    assert outcome.code == 0, outcome.err[-4000:]
    return Chain(home, mlflow_url, outcome)


def test_the_command_reports_a_promoted_model_that_has_learnt(chain: Chain) -> None:
    answer = chain.outcome.answer
    assert answer["promoted"] is True
    assert answer["version"] == "1"
    assert answer["aois"] == ["AOI_0_Synthetic"]
    assert answer["pooled_pixel_f1"] > 0.4  # "every pixel a building" would have about 0.3
    assert f"epoch {EPOCHS}/{EPOCHS}" in chain.outcome.err
    assert "the champion" in chain.outcome.err


def test_dagster_has_every_asset_materialized_with_its_metadata(chain: Chain) -> None:
    with dg.DagsterInstance.from_config(str(chain.home / "dagster")) as instance:
        events = {
            key.to_user_string(): instance.get_latest_materialization_event(key) for key in instance.all_asset_keys()
        }
    assert set(events) >= ASSETS
    metadata = {name: events[name].asset_materialization.metadata for name in ASSETS}
    assert metadata["image_tiles"]["dagster/row_count"].value == 20
    assert metadata["image_tiles"]["area_km2"].value == pytest.approx(20 * 160 * 176 * 0.25 / 1e6, rel=0.1)
    for asset, picture in (
        ("image_tiles", "preview"), ("mask_tiles", "preview"), ("trained_unet", "learning_curves"),
        ("tolerance_sweep", "box_plot"), ("test_evaluation", "overlays"),
    ):  # fmt: skip
        assert metadata[asset][picture].value.startswith("![](data:image/png;base64,"), asset
    run_id = chain.outcome.answer["mlflow_run"]
    assert metadata["trained_unet"]["mlflow_run"].value.endswith(f"/runs/{run_id}")
    assert metadata["trained_unet"]["parameters"].value > 0
    assert metadata["trained_unet"]["gflop_per_512_px_tile"].value > 0
    assert metadata["registered_model"]["registry"].value.endswith("/models/building-footprints/versions/1")


def test_mlflow_has_the_run_and_the_version_with_all_that_belongs_to_them(chain: Chain) -> None:
    client = MlflowClient(chain.mlflow_url, chain.mlflow_url)
    version = client.get_model_version_by_alias("building-footprints", "champion")
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["network.width"] == "8"
    assert len(run.data.params["split_digest"]) == 12
    assert [point.step for point in client.get_metric_history(version.run_id, "val_loss")] == list(range(EPOCHS))
    assert {"tolerance", "aois", "gsd_m", "input_size", "normalization", "test_building_f1"} <= set(version.tags)
    assert float(version.tags["tolerance"]) == pytest.approx(chain.outcome.answer["tolerance"])
    assert float(version.tags["gsd_m"]) == pytest.approx(0.5, abs=0.01)
    files = {item.path for item in client.list_logged_model_artifacts(version.source.removeprefix("models:/"))}
    assert {"MLmodel", "data", "exports"} <= files


def test_the_service_answers_with_the_city_s_buildings(
    chain: Chain, city: CitySummary, tmp_path: Path, footprint: Footprint
) -> None:
    settings = chain.settings.model_copy(update={"imagery": str(city.mosaic), "home": tmp_path / "service"})
    latitude, longitude = city.centre
    body = {"coordinate": {"latitude": latitude, "longitude": longitude}, "zoom": 17}
    with running_service(settings, log=tmp_path / "service.log") as address:
        health = requests.get(f"{address}/healthz", timeout=30).json()
        assert health["model"]["version"] == "1"
        answer = requests.post(f"{address}/v1/footprints", json=body, timeout=120)
        bare = requests.post(f"{address}/predict/polygon", json=body, timeout=120)
        mask = requests.post(f"{address}/predict/mask", json=body, timeout=120)
        nowhere = requests.post(
            f"{address}/predict/polygon", json={"coordinate": {"latitude": 10.0, "longitude": 10.0}}, timeout=120
        )
        refused = requests.post(f"{address}/predict/polygon", json={**body, "tolerance": 2}, timeout=120)

    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Model-Version"] == "1"
    features = answer.json()["features"]
    assert all(0 < feature["properties"]["confidence"] <= 1 for feature in features)
    assert {feature["properties"]["model_version"] for feature in features} == {"1"}

    assert bare.json()["coordinates"] == [feature["geometry"]["coordinates"] for feature in features]
    found = gpd.GeoDataFrame.from_features(features, crs="EPSG:4326").to_crs(32724)
    place = to_wgs84(tile_at(longitude, latitude, 17).bounds_3857)
    true = gpd.read_file(city.folder / "buildings.geojson").cx[place.left : place.right, place.bottom : place.top]
    true = true.to_crs(32724)
    both = found.union_all().intersection(true.union_all()).area
    assert 2 * both / (found.area.sum() + true.area.sum()) > 0.4

    picture = cv2.imdecode(np.frombuffer(mask.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (512, 512)
    assert picture.max() > 128
    assert nowhere.status_code == 404
    assert "imagery" in nowhere.json()["detail"]
    assert refused.status_code == 422
    assert "tolerance" in refused.json()["detail"]


def test_a_service_asks_where_the_alias_points_without_mlflow_s_client(chain: Chain) -> None:
    code = """if True:
        import sys
        from pathlib import Path
        from footprint_pipeline.settings import Settings
        from serving.champion import LateRegistry
        settings = Settings(home=Path(sys.argv[1]), tracking_uri=sys.argv[2])
        print(*LateRegistry(settings).pointed("champion"), "mlflow" in sys.modules)
    """
    asked = subprocess.run(
        [sys.executable, "-c", code, chain.home, chain.mlflow_url],
        capture_output=True, text=True, check=True, env=clean_environment(),
    )  # fmt: skip
    assert asked.stdout.split() == [*Registry(chain.mlflow_url, "building-footprints").pointed(), "False"]
    assert told_version(chain.mlflow_url, "building-footprints", "nobody") is None
    with pytest.raises(NoSuchVersionError, match="no alias 'nobody'"):
        LateRegistry(chain.settings).pointed("nobody")


def test_the_registered_model_scores_a_source_it_has_not_seen_prepared(
    chain: Chain, city: CitySummary, footprint: Footprint
) -> None:
    outcome = footprint(
        "evaluate", "--source", city.folder, "--aoi", "Elsewhere", "--alias", "champion", "--json",
        "--home", chain.home, env=chain.env,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err[-3000:]
    answer = outcome.answer
    assert answer["aois"] == ["Elsewhere"]
    assert answer["tiles"] == 20
    assert {"median_tile_f1", "pooled_pixel_f1", "building_f1"} <= set(answer)
    assert answer["pooled_pixel_f1"] > 0.4
    assert (chain.home / "lake" / "Elsewhere").exists() is False


def test_the_exported_files_are_what_the_registry_holds(chain: Chain, tmp_path: Path, footprint: Footprint) -> None:
    served = footprint("export", "--out", tmp_path / "ir", "--home", chain.home, "--json", env=chain.env)
    trained = footprint(
        "export", "--format", "keras", "--out", tmp_path / "keras", "--home", chain.home, "--json", env=chain.env
    )
    assert (served.code, trained.code) == (0, 0), served.err + trained.err
    assert {path.name for path in (tmp_path / "ir").iterdir()} == {
        "model.xml", "model.bin", "model_int8.xml", "model_int8.bin", "spec.json", "selftest.npz", "training_tiles.csv",
    }  # fmt: skip
    onnx = footprint(
        "export", "--format", "onnx", "--out", tmp_path / "onnx", "--home", chain.home, "--json", env=chain.env
    )
    assert onnx.code == 0, onnx.err
    assert {path.name for path in (tmp_path / "onnx").iterdir()} == {"model.onnx", "spec.json"}
    assert Path(trained.answer["files"][0]).read_bytes()[:2] == b"PK"


def test_a_training_may_start_from_a_registered_model(chain: Chain) -> None:
    for name in ("champion", "1"):
        assert find_weights(chain.settings, name).read_bytes()[:2] == b"PK"
    with pytest.raises(RegistryError, match="no version 7"):
        find_weights(chain.settings, "7")


def test_the_command_answers_for_a_place_with_a_file_and_a_picture(
    chain: Chain, city: CitySummary, tmp_path: Path, footprint: Footprint
) -> None:
    latitude, longitude = city.centre
    outcome = footprint(
        "predict", "--at", f"{latitude},{longitude}", "--zoom", "18", "--outline", "regularised",
        "--imagery", city.mosaic, "--home", chain.home,
        "--out", tmp_path / "found.geojson", "--picture", tmp_path / "found.png", "--json", env=chain.env,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err[-3000:]
    features = json.loads((tmp_path / "found.geojson").read_text())["features"]
    assert len(features) == outcome.answer["footprints"] > 0
    assert "regularised" in {feature["properties"]["outline"] for feature in features}
    assert cv2.imread(str(tmp_path / "found.png")).shape == (1024, 1024, 3)


def test_a_second_equal_model_is_registered_and_does_not_replace_the_champion(
    chain: Chain, city: CitySummary, footprint: Footprint
) -> None:
    outcome = footprint("register", "--home", chain.home, "--json", env=chain.env)
    assert outcome.code == 0, outcome.err[-3000:]
    assert outcome.answer["version"] == "2"
    assert (outcome.answer["promoted"], outcome.answer["reason"]) == (False, "version 1 is the same network")
    assert outcome.answer["champion_metrics"]["pooled_pixel_f1"] == pytest.approx(
        outcome.answer["metrics"]["pooled_pixel_f1"], abs=0.02
    )
    client = MlflowClient(chain.mlflow_url, chain.mlflow_url)
    assert client.get_model_version_by_alias("building-footprints", "champion").version == "1"
    assert client.get_model_version_by_alias("building-footprints", "challenger").version == "2"


def test_ctrl_c_ends_a_training_cleanly_and_the_same_command_goes_on(tmp_path: Path, city: CitySummary) -> None:
    home = tmp_path / "home"

    def interrupted(when: str) -> str:
        """What the command says when Ctrl-C is pressed as it says this."""
        with subprocess.Popen(
            [
                Path(sys.executable).with_name("footprint"), "run", "--source", city.folder, "--aoi", "Renamed",
                "--home", home,
                "--width", "4", "--size", "64", "--epochs", "500", "--patience", "500",
                "--chips-per-epoch", "96",
            ],
            stderr=subprocess.PIPE, text=True, start_new_session=True, env=clean_environment(),
        ) as process:  # fmt: skip
            assert process.stderr is not None
            seen = []
            for line in process.stderr:
                seen.append(line)
                if when in line:
                    process.send_signal(signal.SIGINT)
                    break
            seen += process.stderr.readlines()
        assert process.wait(60) == 130, "".join(seen)
        assert "What was finished is kept" in seen[-1]
        assert "Traceback" not in "".join(seen)
        return "".join(seen)

    interrupted("epoch 2/500")
    assert (home / "lake" / "Renamed" / "split_manifest.parquet").exists()
    again = interrupted("Going on after epoch")
    assert "Caching" not in again
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("building-footprints").experiment_id])
    assert [run.info.status for run in runs] == ["KILLED"]


def test_ctrl_c_while_a_database_is_closed_shows_no_traceback(tmp_path: Path) -> None:
    code = """if True:
        import sqlalchemy
        from footprint_pipeline import cli

        def interrupted(connection):
            raise KeyboardInterrupt

        @cli.command
        def close(settings):
            engine = sqlalchemy.create_engine("sqlite://")
            engine.dialect.do_close = interrupted
            engine.connect().close()
            engine.dispose()

        cli.main(["close"])
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, env=clean_environment()
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("Interrupted.")
