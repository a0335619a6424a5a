"""The registry against real MLflow on SQLite, with a network logged the way training logs it."""

import errno
import shutil
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException

from footprint_pipeline.errors import RegistryError, TrainingError
from footprint_pipeline.footprints.normalization import UINT8
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.spec import ModelSpec
from footprint_pipeline.model import tracking
from footprint_pipeline.model.export import export_openvino, load_keras
from footprint_pipeline.model.spec import UNetSpec
from footprint_pipeline.model.unet import build_unet
from footprint_pipeline.registry import (
    CHALLENGER,
    CHAMPION,
    SERVING_FOLDER,
    NoSuchVersionError,
    Registry,
    experiment_id,
    open_database,
    without_credentials,
)
from footprint_pipeline.versions import EXPORTS

# mlflow.pyfunc warns of its own type hints when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*inferred as AnyType:UserWarning")

NAME = "footprints-test"
SECRET = "hunter2"


@dataclass(frozen=True)
class Trained:
    """A run of the test's own."""

    uri: str
    artifacts: Path
    run_id: str
    model_id: str
    network: keras.Model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    before = mlflow.get_tracking_uri()
    network = build_unet(UNetSpec(width=2, depth=1))
    with tracking.start_run(
        uri, "tests", artifacts=folder / "artifacts", params={"loss": "bce"}, tags={"aois": "Town"}
    ) as run:
        run.log_epochs({0: {"loss": 0.5, "val_loss": float("nan")}})
        run.log_epochs({1: {"loss": 0.4, "val_loss": 0.6}})
        run.log_picture("training/curve.png", b"\x89PNG")
        model_id = run.log_model(network, stride=2)
    serving = folder / "exported"
    export_openvino(network, serving, chip_size=16)
    ModelSpec(
        model_name=NAME, network="tiny", tolerance=0.5, gsd_m=0.5, chip_size=16, stride=2, aois=("Town",),
        normalization={"Town": UINT8},
    ).write(serving)  # fmt: skip
    tracking.add_to_model(uri, model_id, serving, SERVING_FOLDER)
    yield Trained(uri, folder / "artifacts", run.run_id, model_id, network)
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def registry(trained: Trained) -> Registry:
    """Two versions; the first is the champion."""
    registry = Registry(trained.uri, NAME)
    for number in ("1", "2"):
        made = registry.register(
            model_id=trained.model_id, run_id=trained.run_id, tags={"tolerance": "0.50"}, description="tiny"
        )
        assert made == number
    registry.point(CHAMPION, "1")
    registry.point(CHALLENGER, "2")
    return registry


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_epochs_are_logged_once_but_for_those_of_a_training_that_began_anew(trained: Trained) -> None:
    former = [{"loss": 1.0 - epoch / 10} for epoch in range(3)]
    anew = [{"loss": 0.5}, former[1], {"loss": 0.25}, {"loss": 0.125}]
    run_id = None
    for history in (former, anew, anew):
        with (
            suppress(KeyboardInterrupt),
            tracking.start_run(trained.uri, "anew", artifacts=None, params={}, tags={}, run_id=run_id) as run,
        ):
            run.log_epochs(dict(enumerate(history)))
            run_id = run.run_id
            raise KeyboardInterrupt
    told = mlflow.MlflowClient(trained.uri).get_metric_history(run_id, "loss")
    assert [metric.value for metric in sorted(told, key=lambda metric: (metric.step, metric.timestamp))] == [
        1.0, 0.5, 0.9, 0.8, 0.25, 0.125,
    ]  # fmt: skip


def test_a_training_is_a_run_with_all_that_is_known_of_it(trained: Trained) -> None:
    client = mlflow.MlflowClient(trained.uri)
    run = client.get_run(trained.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"loss": "bce"}
    assert run.data.tags["aois"] == "Town"
    assert {"python", "keras_backend", "version.keras"} <= set(run.data.tags)
    assert [(metric.step, metric.value) for metric in client.get_metric_history(trained.run_id, "loss")] == [
        (0, 0.5),
        (1, 0.4),
    ]
    assert [metric.step for metric in client.get_metric_history(trained.run_id, "val_loss")] == [1]
    assert [file.path for file in client.list_artifacts(trained.run_id, "training")] == ["training/curve.png"]
    signature = mlflow.models.get_model_info(f"models:/{trained.model_id}").signature
    assert signature.inputs.inputs[0].shape == (-1, -1, -1, 3)


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_that_breaks_off_says_so(trained: Trained, error: type[BaseException], status: str) -> None:
    with (
        pytest.raises(error),
        tracking.start_run(trained.uri, "tests", artifacts=None, params={}, tags={}) as run,
    ):
        raise error
    assert mlflow.MlflowClient(trained.uri).get_run(run.run_id).info.status == status
    assert mlflow.active_run() is None


def test_files_and_metrics_can_be_added_afterwards(trained: Trained) -> None:
    tracking.log_metrics(trained.run_id, {"test_building_f1": 0.25})
    tracking.log_files(trained.run_id, {"test/tiles.csv": b"a,b\n", "notes.txt": b"hello"})
    client = mlflow.MlflowClient(trained.uri)
    assert client.get_run(trained.run_id).data.metrics["test_building_f1"] == 0.25
    assert [file.path for file in client.list_artifacts(trained.run_id, "test")] == ["test/tiles.csv"]
    assert "notes.txt" in [file.path for file in client.list_artifacts(trained.run_id)]


def test_a_logged_network_comes_back(trained: Trained, tmp_path: Path) -> None:
    again = load_keras(tracking.download_keras(trained.uri, trained.model_id, tmp_path))
    for ours, theirs in zip(trained.network.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)
    with pytest.raises(RegistryError, match="m-nothing cannot be fetched"):
        tracking.download_keras(trained.uri, "m-nothing", tmp_path)


def test_an_alias_resolves_to_its_version(registry: Registry, trained: Trained) -> None:
    champion = registry.champion()
    assert champion is not None
    assert (champion.name, champion.version, champion.run_id) == (NAME, "1", trained.run_id)
    assert champion.tags == {"tolerance": "0.50"}
    assert registry.version() == "1"
    assert registry.version(CHALLENGER) == "2"
    assert registry.resolve(version="2").version == "2"


def test_promotion_moves_the_alias(registry: Registry) -> None:
    registry.point(CHAMPION, "2")
    assert registry.version() == "2"
    registry.point(CHAMPION, "1")
    assert registry.version() == "1"
    registry.tag("2", {"verdict": "below"})
    assert registry.resolve(version="2").tags["verdict"] == "below"


def test_pulling_brings_the_exported_model_and_brings_it_once(
    registry: Registry, trained: Trained, tmp_path: Path
) -> None:
    folder = registry.pull(version="1", into=tmp_path / "pulled")
    assert sorted(path.name for path in folder.iterdir()) == ["model.bin", "model.xml", "selftest.npz", "spec.json"]
    assert folder.name == f"1-{trained.run_id[:8]}"
    batch = np.random.default_rng(0).random((1, 16, 16, 3), np.float32)
    ours = keras.ops.convert_to_numpy(trained.network(batch))
    assert np.abs(Runtime(folder, threads=1, precision="f32")(batch) - ours).max() < 1e-4
    assert [path.name for path in (tmp_path / "pulled").iterdir()] == [folder.name]

    away = trained.artifacts.with_name("away")
    trained.artifacts.rename(away)
    try:
        assert registry.pull(version="1", into=tmp_path / "pulled") == folder
        with pytest.raises(RegistryError, match=f"{NAME} version 2: its exported model .* No such artifact: 'serving'"):
            registry.pull(version="2", into=tmp_path / "pulled")
        with pytest.raises(RegistryError, match="its Keras model cannot be pulled"):
            registry.pull_keras(version="2", into=tmp_path)
        with pytest.raises(RegistryError, match="cannot be fetched"):
            tracking.download_keras(trained.uri, trained.model_id, tmp_path)
    finally:
        away.rename(trained.artifacts)
    assert [path.name for path in (tmp_path / "pulled").iterdir()] == [folder.name]


def test_weights_that_the_store_has_lost_are_missed_until_they_are_back(
    registry: Registry, trained: Trained, tmp_path: Path
) -> None:
    (weights,) = trained.artifacts.rglob("serving/model.bin")
    away = weights.rename(trained.artifacts / "away.bin")
    try:
        with pytest.raises(RegistryError, match=f"{NAME} version 1: its exported model lacks model.bin"):
            registry.pull(version="1", into=tmp_path)
        assert list(tmp_path.iterdir()) == []
    finally:
        away.rename(weights)
    assert (registry.pull(version="1", into=tmp_path) / "model.bin").exists()


def test_a_folder_that_cannot_be_written_to_is_no_fault_of_the_registry(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "pulled").touch()
    with pytest.raises(FileExistsError) as caught:
        registry.pull(version="1", into=tmp_path / "pulled")
    assert caught.value.filename == str(tmp_path / "pulled")


@pytest.mark.skipif(sys.platform == "win32", reason="nothing limits the size of a file there")
def test_nor_is_a_disk_that_is_full(registry: Registry, tmp_path: Path) -> None:
    import resource

    registry.version()  # SQLite's own files are open then
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            registry.pull(version="1", into=tmp_path)
        with pytest.raises(OSError, match="File too large"):
            registry.pull_keras(version="1", into=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_full_disk_of_a_server_is_its_own_fault(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answered(**_: object) -> str:
        raise MlflowException('500 Server Error. Response text: {"message": "failed:\\n[Errno 28] No space left"}')

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", answered)
    with pytest.raises(RegistryError, match="Errno 28"):
        registry.pull(version="1", into=tmp_path)


def test_an_export_of_its_own_is_pulled_anew_under_the_same_number_and_run(
    registry: Registry, trained: Trained, tmp_path: Path
) -> None:
    former = registry.pull(version="1", into=tmp_path)
    other = Registry(trained.uri, "begun-anew")
    exports = f"{EXPORTS}/0123456789abcdef"
    client = mlflow.MlflowClient(trained.uri)
    with tempfile.TemporaryDirectory() as parent:
        shutil.copytree(former, Path(parent) / exports / SERVING_FOLDER)
        client.log_model_artifacts(trained.model_id, parent)
    run = {"model_id": trained.model_id, "run_id": trained.run_id}
    assert other.register(**run, tags={EXPORTS: exports}, description="") == "1"
    other.point(CHAMPION, "1")
    assert other.pull(version="1", into=tmp_path).name == other.pointed().folder == "1-01234567" != former.name


def test_what_a_run_cannot_be_told_is_told_without_a_password(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object, **__: object) -> None:
        raise MlflowException("API request to http://me:S3CRET@mlflow/api failed")

    mlflow.set_tracking_uri(trained.uri)
    training = tracking.TrainingRun(mlflow.get_run(trained.run_id))
    for method in ("log_artifact", "list_artifacts", "get_run", "log_metric", "log_model_artifacts"):
        monkeypatch.setattr(mlflow.MlflowClient, method, away)
    for ask in (
        lambda: tracking.log_files(trained.run_id, {"a/b.txt": b""}),
        lambda: tracking.read_file(trained.uri, trained.run_id, "a/b.txt"),
        lambda: tracking.described(trained.run_id),
        lambda: tracking.log_metrics(trained.run_id, {"loss": 1.0}),
        lambda: tracking.add_to_model(trained.uri, trained.model_id, trained.artifacts.parent / "none", "serving"),
    ):
        trained.artifacts.parent.joinpath("none").mkdir(exist_ok=True)
        with pytest.raises(RegistryError, match="API request to http://mlflow/api failed") as caught:
            ask()
        assert "S3CRET" not in "".join(traceback.format_exception(caught.value))
    training.try_picture("a.png", b"")  # a training goes on without it
    assert "a.png is missing in MLflow" in caplog.text
    assert "S3CRET" not in caplog.text


def test_an_experiment_that_was_deleted_is_told_with_the_way_back(trained: Trained) -> None:
    client = mlflow.MlflowClient(trained.uri)
    number = experiment_id(client, "forgotten", artifacts=trained.artifacts)
    assert experiment_id(client, "forgotten", artifacts=None) == number
    client.delete_experiment(number)
    with pytest.raises(RegistryError, match="experiment forgotten is deleted") as caught:
        experiment_id(client, "forgotten", artifacts=None)
    assert caught.value.fix.endswith(f"MLFLOW_TRACKING_URI={trained.uri} mlflow experiments restore -x {number}")


def test_half_a_pulled_model_is_pulled_again(registry: Registry, tmp_path: Path) -> None:
    folder = registry.pull(version="1", into=tmp_path)
    (folder / "spec.json").unlink()
    (folder / "leftover").touch()
    assert registry.pull(version="1", into=tmp_path) == folder
    assert sorted(path.name for path in folder.iterdir()) == ["model.bin", "model.xml", "selftest.npz", "spec.json"]


def test_the_keras_model_can_be_pulled_to_train_on(registry: Registry, trained: Trained, tmp_path: Path) -> None:
    path = registry.pull_keras(version="2", into=tmp_path / "k")
    assert path == tmp_path / "k" / f"{NAME}-2.keras"
    for ours, theirs in zip(trained.network.get_weights(), load_keras(path).get_weights(), strict=True):
        assert np.array_equal(ours, theirs)


def test_that_mlflow_is_gone_does_not_hide_why_a_training_ends(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(*_: object) -> None:
        raise MlflowException("the server is away: http://me:S3CRET@mlflow/api")

    def ends_with(error: BaseException) -> None:
        with tracking.start_run(trained.uri, "tests", artifacts=None, params={}, tags={}):
            monkeypatch.setattr(mlflow, "end_run", gone)
            raise error

    for error in (KeyboardInterrupt(), TrainingError("The loss is not a number.", fix="Lower the rate.")):
        with pytest.raises(type(error)) as caught:
            ends_with(error)
        monkeypatch.undo()
        mlflow.end_run()
        assert caught.value is error
        assert "the server is away" in caplog.text
        assert "S3CRET" not in caplog.text
    with (
        pytest.raises(RegistryError, match=r"does not answer as it should \(the server is away: .*mlflow/api"),
        tracking.start_run(trained.uri, "tests", artifacts=None, params={}, tags={}),
    ):
        gone()


def test_a_version_without_an_exported_model_is_named(trained: Trained, registry: Registry, tmp_path: Path) -> None:
    with tracking.start_run(trained.uri, "tests", artifacts=None, params={}, tags={}) as run:
        model_id = run.log_model(trained.network, stride=2)
    bare = registry.register(model_id=model_id, run_id=run.run_id, tags={}, description="")
    with pytest.raises(RegistryError, match=f"version {bare}: its exported model cannot be pulled"):
        registry.pull(version=bare, into=tmp_path)
    with pytest.raises(RegistryError, match=f"version {bare}: its ONNX model cannot be pulled") as caught:
        registry.pull_onnx(version=bare, into=tmp_path)
    assert "register the model again" in caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_no_champion_says_what_to_do(trained: Trained, registry: Registry, tmp_path: Path) -> None:
    empty = Registry(trained.uri, "never-trained")
    assert empty.champion() is None
    with pytest.raises(NoSuchVersionError, match="never-trained: the registry has no alias 'champion'") as caught:
        empty.resolve(alias=CHAMPION)
    assert "footprint run" in caught.value.fix
    with pytest.raises(NoSuchVersionError, match="no version 99"):
        registry.resolve(version="99")
    with pytest.raises(NoSuchVersionError, match="no alias 'nobody'"):
        registry.version("nobody")
    with pytest.raises(RegistryError):
        registry.point(CHAMPION, "99")
    with pytest.raises(RegistryError):
        registry.tag("99", {"a": "b"})


def test_a_server_that_is_down_is_soon_known_and_its_password_kept() -> None:
    port = closed_port()
    started = time.monotonic()
    with pytest.raises(RegistryError) as caught:
        Registry(f"http://someone:{SECRET}@127.0.0.1:{port}", NAME).champion()
    assert time.monotonic() - started < 30
    assert not isinstance(caught.value, NoSuchVersionError)
    assert f"registry at http://127.0.0.1:{port} does not answer" in str(caught.value)
    assert SECRET not in str(caught.value) + repr(caught.value)
    assert "MLFLOW_TRACKING_URI" in caught.value.fix


def test_a_request_that_is_never_answered_is_given_up_before_long() -> None:
    times = 1 + MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()
    assert times * MLFLOW_HTTP_REQUEST_TIMEOUT.get() <= 90


def test_whatever_is_asked_of_it_a_server_that_is_down_is_a_registry_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = mlflow.get_tracking_uri()
    uri = f"http://someone:{SECRET}@127.0.0.1:{closed_port()}"
    registry = Registry(uri, NAME)

    def start() -> None:
        with tracking.start_run(uri, "tests", artifacts=None, params={}, tags={}):
            pass

    for ask in (
        lambda: registry.pull(version="1", into=tmp_path),
        lambda: registry.pull_keras(version="1", into=tmp_path),
        lambda: registry.pull_onnx(version="1", into=tmp_path),
        lambda: registry.point(CHAMPION, "1"),
        lambda: registry.tag("1", {"a": "b"}),
        lambda: registry.register(model_id="m", run_id="r", tags={}, description=""),
        start,
        lambda: tracking.download_keras(uri, "m-1", tmp_path),
    ):
        try:
            with pytest.raises(RegistryError) as caught:
                ask()
        finally:
            mlflow.set_tracking_uri(before)
        assert SECRET not in str(caught.value) + repr(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_is_none_keeps_its_password() -> None:
    with pytest.raises(RegistryError, match="nonsense://host/x") as caught:
        Registry(f"nonsense://someone:{SECRET}@host/x", NAME).champion()
    assert SECRET not in str(caught.value) + repr(caught.value)


def test_a_database_whose_driver_is_not_there_is_told_with_one_that_is(trained: Trained) -> None:
    uri = f"postgresql+pg8000://someone:{SECRET}@host/x"
    open_database(uri)  # leaves it to those who need it

    def start() -> None:
        with tracking.start_run(uri, "tests", artifacts=None, params={}, tags={}):
            pass

    for ask in (Registry(uri, NAME).champion, start):
        try:
            with pytest.raises(
                RegistryError, match=r"postgresql\+pg8000://host/x .* \(No module named 'pg8000'\)"
            ) as told:
                ask()
        finally:
            mlflow.set_tracking_uri(trained.uri)
        assert "postgresql+psycopg2://" in told.value.fix
        assert SECRET not in str(told.value) + repr(told.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:p@ss@host:5000/api", "http://host:5000/api"),
        ("postgresql+psycopg2://me:pass@host/db and http://u@h", "postgresql+psycopg2://host/db and http://h"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
    ],
)
def test_credentials_and_nothing_else_are_cut_out(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
