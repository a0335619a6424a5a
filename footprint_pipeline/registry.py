"""The MLflow model registry: register, promote by alias, resolve, pull. No Dagster, no Keras.

A version holds the Keras model; in a folder of its own under `serving/` the exported one with its spec, and under
`onnx/` the same network as ONNX. It works with mlflow-skinny, so the service needs nothing more.
"""

import errno
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

# Read when MLflow is imported or first called: no telemetry, no bars; a server that is down or silent is soon known.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a password may be in it
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # s of silence; a server hands on to its store meanwhile

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from footprint_pipeline.errors import NoSuchVersionError, RegistryError, first_line
from footprint_pipeline.files import atomic_folder, copy_file
from footprint_pipeline.footprints.spec import ONNX_FILE, SPEC_FILE, ModelSpec
from footprint_pipeline.settings import Settings
from footprint_pipeline.versions import EXPORTS, Pointed, pointed

log = logging.getLogger(__name__)

CHAMPION = "champion"
CHALLENGER = "challenger"
SERVING_FOLDER = "serving"
"""Artifact folder of a version that holds the exported model."""
ONNX_FOLDER = "onnx"
"""Artifact folder of a version that holds `model.onnx`; apart, so that the service does not pull it."""
CARD_FOLDER = "card"
"""Artifact folder of a version that holds `model_card.html`."""
LEARNED = "training_tiles.csv"
"""Beside an exported model: `aoi` and `tile_id` of every tile that it has learned from."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_THERE_ALREADY = "RESOURCE_ALREADY_EXISTS"
_CHECK = "Check that it runs and that MLFLOW_TRACKING_URI names it."
_DRIVER = "Have MLFLOW_TRACKING_URI name a driver that is installed, as in postgresql+psycopg2://, or an MLflow server."


@dataclass(frozen=True)
class Registered:
    """A version in the registry."""

    name: str
    version: str
    run_id: str
    tags: dict[str, str]
    description: str = ""


class Registry:
    """One registered model in one registry.

    Args:
        tracking_uri: MLflow server or database.
        model_name: name of the registered model.
    """

    def __init__(self, tracking_uri: str, model_name: str) -> None:
        self.tracking_uri = tracking_uri
        self.model_name = model_name
        self._client: MlflowClient | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Registry":
        """The one that the settings name."""
        return cls(settings.mlflow_uri, settings.model_name)

    @property
    def client(self) -> MlflowClient:
        """The MLflow client, made at first use."""
        if self._client is None:
            try:
                self._client = MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)
            except (MlflowException, ImportError) as error:
                raise self._unreachable(error) from None
        return self._client

    def version(self, alias: str = CHAMPION) -> str:
        """The version that an alias points to.

        Raises:
            RegistryError: there is none, or the registry cannot be reached.
        """
        return self.resolve(alias=alias).version

    def pointed(self, alias: str = CHAMPION) -> Pointed:
        """The same, told from another of its number.

        Raises:
            RegistryError: as `version`.
        """
        found = self.resolve(alias=alias)
        return pointed(found.version, run_id=found.run_id, tags=found.tags)

    def resolve(self, *, alias: str | None = None, version: str | None = None) -> Registered:
        """A version by alias or by number.

        Raises:
            RegistryError: there is none, or the registry cannot be reached.
        """
        found = self._find(alias=alias, version=version)
        return Registered(
            self.model_name, str(found.version), found.run_id or "", dict(found.tags), found.description or ""
        )

    def named(self, name: str) -> Registered:
        """A version by what people call it: its number, or an alias.

        Raises:
            RegistryError: as `resolve`.
        """
        return self.resolve(version=name) if name.isdecimal() else self.resolve(alias=name)

    def champion(self) -> Registered | None:
        """The present champion, None when there is none."""
        try:
            return self.resolve(alias=CHAMPION)
        except NoSuchVersionError:
            return None

    def pull(self, *, version: str, into: Path, onnx: bool = False) -> Path:
        """Download the exported model of a version, unless it is there already.

        Args:
            version: which one, by number.
            into: folder that keeps pulled versions, one folder each.
            onnx: whether to bring `model.onnx` too.

        Returns:
            The folder that holds `model.xml`, `model.bin` and `spec.json`.

        Raises:
            RegistryError: no such version, it holds no exported model, or the registry cannot be reached.
            ModelError: the version's spec cannot be read.
            OSError: the folder cannot be written to.
        """
        found = self._find(version=version)
        target = into / pointed(found.version, run_id=found.run_id or "", tags=found.tags).folder
        if (target / SPEC_FILE).exists() and (not onnx or (target / ONNX_FILE).exists()):
            return target
        with (
            atomic_folder(target) as temporary,
            tempfile.TemporaryDirectory(dir=temporary) as scratch,
            self._handing_over(found, "exported model", into),
        ):
            source = self.client.get_model_version_download_uri(self.model_name, found.version)
            pulled = mlflow.artifacts.download_artifacts(
                artifact_uri=f"{source}/{_folder(found, SERVING_FOLDER)}",
                dst_path=scratch,
                tracking_uri=self.tracking_uri,
            )
            ModelSpec.read(Path(pulled))
            self._check_whole(found, Path(pulled))
            for path in list(Path(pulled).iterdir()):
                path.replace(temporary / path.name)
            if onnx:
                artifact = f"{_folder(found, ONNX_FOLDER)}/{ONNX_FILE}"
                self._pull_file(found, artifact, temporary / ONNX_FILE, "ONNX model")
        return target

    def pull_keras(self, *, version: str, into: Path) -> Path:
        """Download the Keras model of a version into a folder, and return the `.keras` file.

        What it has learned from comes along, where that is known; see `learned_beside`.

        Raises:
            RegistryError: no such version, or the registry cannot be reached.
        """
        found = self._find(version=version)
        path = self._pull_file(found, "data", into / f"{self.model_name}-{found.version}.keras", "Keras model")
        try:
            learned = f"{_folder(found, SERVING_FOLDER)}/{LEARNED}"
            self._pull_file(found, learned, learned_beside(path), "list of training tiles")
        except RegistryError as error:
            log.warning("%s What it is trained on further is judged as if it had learned from none.", error.problem)
        return path

    def pull_onnx(self, *, version: str, into: Path) -> list[Path]:
        """Download a version as ONNX into a folder: `model.onnx`, and `spec.json`, which says how it is used.

        Raises:
            RegistryError: no such version, or the registry cannot be reached.
        """
        found = self._find(version=version)
        return [
            self._pull_file(found, f"{_folder(found, ONNX_FOLDER)}/{ONNX_FILE}", into / ONNX_FILE, "ONNX model"),
            self._pull_file(found, f"{_folder(found, SERVING_FOLDER)}/{SPEC_FILE}", into / SPEC_FILE, "spec"),
        ]

    def _pull_file(self, found: ModelVersion, artifact: str, target: Path, what: str) -> Path:
        """Download a file of a version, or the Keras file in a folder of it."""
        with tempfile.TemporaryDirectory() as scratch:
            with self._handing_over(found, what, Path(scratch)):
                source = self.client.get_model_version_download_uri(self.model_name, found.version)
                fetched = Path(
                    mlflow.artifacts.download_artifacts(
                        artifact_uri=f"{source}/{artifact}", dst_path=scratch, tracking_uri=self.tracking_uri
                    )
                )
                fetched = next(fetched.glob("*.keras")) if fetched.is_dir() else fetched
            copy_file(fetched, target)
        return target

    def _check_whole(self, found: ModelVersion, folder: Path) -> None:
        """Make sure that no network lacks its weights: that is no fault of the version's, and may be put right."""
        lost = [xml.with_suffix(".bin").name for xml in folder.glob("*.xml") if not xml.with_suffix(".bin").exists()]
        if lost:
            raise RegistryError(
                f"{self.model_name} version {found.version}: its exported model lacks {' and '.join(sorted(lost))}.",
                fix="Put it back into the registry's artifact store, or register the model again.",
            )

    @contextmanager
    def _handing_over(self, found: ModelVersion, what: str, into: Path) -> Iterator[None]:
        """What keeps something of a version from being downloaded: this disk, else the registry."""
        try:
            yield
        except (MlflowException, OSError, StopIteration) as error:
            if number := _full_disk(error):
                raise OSError(number, os.strerror(number), str(into)) from None
            raise RegistryError(
                f"{self.model_name} version {found.version}: its {what} cannot be pulled ({safe_line(error)}).",
                fix="Check that the registry's artifact store is reachable, or register the model again.",
            ) from None

    def register(self, *, model_id: str, run_id: str, tags: dict[str, str], description: str) -> str:
        """Make a version of a logged model and return its number.

        Raises:
            RegistryError: the registry refuses or cannot be reached.
        """
        with self._answering():
            try:
                self.client.create_registered_model(
                    self.model_name, description="Building footprints from RGB imagery. The service follows @champion."
                )
            except MlflowException as error:
                if error.error_code != _THERE_ALREADY:
                    raise
            return str(
                self.client.create_model_version(
                    self.model_name,
                    source=f"models:/{model_id}",
                    run_id=run_id,
                    model_id=model_id,
                    tags=tags,
                    description=description,
                ).version
            )

    def point(self, alias: str, version: str) -> None:
        """Make an alias point to a version, in one step.

        Raises:
            RegistryError: no such version, or the registry cannot be reached.
        """
        with self._answering():
            self.client.set_registered_model_alias(self.model_name, alias, version)

    def tag(self, version: str, tags: dict[str, str]) -> None:
        """Add tags to a version.

        Raises:
            RegistryError: no such version, or the registry cannot be reached.
        """
        with self._answering():
            for key, value in tags.items():
                self.client.set_model_version_tag(self.model_name, version, key, value)

    def describe(self, version: str, description: str) -> None:
        """Say something else of a version, for people.

        Raises:
            RegistryError: no such version, or the registry cannot be reached.
        """
        with self._answering():
            self.client.update_model_version(self.model_name, version, description)

    def _find(self, *, alias: str | None = None, version: str | None = None) -> ModelVersion:
        try:
            if alias is not None:
                return self.client.get_model_version_by_alias(self.model_name, alias)
            return self.client.get_model_version(self.model_name, str(version))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                what = f"alias {alias!r}" if alias is not None else f"version {version}"
                check = "check MLFLOW_TRACKING_URI and FOOTPRINT_MODEL_NAME."
                raise NoSuchVersionError(
                    f"{self.model_name}: the registry has no {what}.",
                    fix=f"Train and register a model first (footprint run), or {check}"
                    if alias is not None
                    else f"Give the number of a version that is there, as MLflow lists them, or {check}",
                ) from None
            raise self._unreachable(error) from None

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except MlflowException as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> RegistryError:
        return unanswered(self.tracking_uri, error, what="The model registry")


def unanswered(uri: str, error: Exception, *, what: str = "MLflow", fix: str = _CHECK) -> RegistryError:
    """The error for an address that does not answer, without its password."""
    where = without_credentials(uri)
    fix = _DRIVER if isinstance(error, ImportError) else fix
    return RegistryError(f"{what} at {where} does not answer as it should ({safe_line(error)}).", fix=fix)


def _full_disk(error: Exception) -> int:
    """The `errno` of a disk that takes no more, 0 where it is another error; MLflow keeps nothing but its text.

    A server's own disk is none of ours: what it says stands in one line, behind that there was an answer.
    """
    told = re.search(r"^\[Errno (\d+)\]", str(error), re.MULTILINE)
    return number if told and (number := int(told[1])) in _FULL else 0


def learned_beside(weights: Path) -> Path:
    """Where it is written which tiles a `.keras` file has learned from; there is no such file where nobody knows."""
    return weights.with_suffix(f".{LEARNED}")


def _folder(found: ModelVersion, name: str) -> str:
    """Where a folder of a version lies among the artifacts of its logged model."""
    return "/".join(filter(None, (found.tags.get(EXPORTS), name)))


def open_database(uri: str) -> None:
    """Make MLflow's database, or bring it up to date; one that cannot be is left for whoever needs it to say so."""
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    with suppress(MlflowException, SQLAlchemyError, CommandError, ImportError, OSError):
        MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments(max_results=1)


def experiment_id(client: MlflowClient, name: str, *, artifacts: Path | None) -> str:
    """The MLflow experiment of this name, made when it is not there.

    Args:
        client: where it is.
        name: of the experiment.
        artifacts: folder for its artifacts when no server keeps them; None leaves them to the server.

    Raises:
        RegistryError: it was deleted in MLflow.
    """
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        raise RegistryError(
            f"MLflow's experiment {name} is deleted.",
            fix=f"Restore it: MLFLOW_TRACKING_URI={without_credentials(client.tracking_uri)} "
            f"mlflow experiments restore -x {found.experiment_id}",
        )
    if found is not None:
        return str(found.experiment_id)
    location = artifacts.absolute().as_uri() if artifacts is not None else None
    return str(client.create_experiment(name, artifact_location=location))


def without_credentials(text: str) -> str:
    """The text with user names and passwords cut out of the addresses in it; MLflow's own messages hold them."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


def safe_line(error: Exception) -> str:
    """`errors.first_line` without credentials."""
    return without_credentials(first_line(error))
