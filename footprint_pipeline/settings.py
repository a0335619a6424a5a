"""Every environment variable the project reads, typed and documented once.

`.env.example` lists the same names. Secrets are `SecretStr`: they print as asterisks.
"""

import logging
import os
import re
from difflib import get_close_matches
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from footprint_pipeline.errors import SettingsError, field_problems
from footprint_pipeline.files import without_tilde
from footprint_pipeline.home import check_name
from footprint_pipeline.lake import Lake

log = logging.getLogger(__name__)

_PREFIX = "FOOTPRINT_"
_OF_TESTS = "REAL_DATA"


class Settings(BaseSettings):
    """Where state lives and which outside services to use. Environment variables override the defaults."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, extra="ignore", frozen=True, populate_by_name=True, env_ignore_empty=True
    )

    home: Path = Field(Path(".footprint"), description="Folder that holds all state.")
    tracking_uri: str | None = Field(
        None,
        validation_alias="MLFLOW_TRACKING_URI",
        description="MLflow tracking and registry server; by default a SQLite file under the home.",
    )
    mlflow_ui_url: str = Field(
        "http://127.0.0.1:5000", description="Where a browser reaches the MLflow UI; used for links."
    )
    experiment: str = Field("building-footprints", description="MLflow experiment that runs are logged to.")
    model_name: str = Field("building-footprints", description="Name of the registered model.")
    alias: str = Field("champion", description="Registry alias that the service follows.")

    retrain_cron: str = Field(
        "0 3 * * 1", description="When the schedule weekly_retraining trains anew, as cron says it, in UTC."
    )
    retrain_spec: Path | None = Field(
        None, description="Recipe that trainings which start by themselves go by; the shipped one when empty."
    )

    s3_endpoint_url: str | None = Field(None, description="S3-compatible endpoint; by default AWS.")
    s3_requester_pays: bool = Field(False, description="Send the requester-pays header with every S3 read.")
    s3_signed: bool = Field(
        False, description="Sign S3 requests with the usual AWS credentials; by default read anonymously."
    )

    imagery: str = Field(
        "mapbox",
        description="Imagery of the service: 'mapbox', an XYZ URL template with {z} {x} {y}, or a GeoTIFF path.",
    )
    imagery_attribution: str = Field("", description="Attribution of an XYZ template or GeoTIFF, put on every answer.")
    imagery_min_zoom: int = Field(0, ge=0, le=24, description="Coarsest zoom that the XYZ template answers.")
    imagery_max_zoom: int = Field(19, ge=0, le=24, description="Finest zoom that the XYZ template answers.")
    imagery_sources: Path | None = Field(
        None, description="TOML file that names sources of imagery for requests to choose from, in place of the above."
    )
    imagery_cache: Path | None = Field(
        None, description="Folder where map tiles are kept as their provider allows; by default below the home."
    )
    imagery_cache_mb: int = Field(
        1024, ge=0, description="How much the folder may hold, MB; 0 keeps only a little, in memory."
    )
    mapbox_access_token: SecretStr | None = Field(
        None, validation_alias="MAPBOX_ACCESS_TOKEN", description="Token for Mapbox satellite tiles."
    )
    image_url_hosts: str = Field(
        "", description="Comma-separated hosts that image_url may name in /predict/mask; empty turns image_url off."
    )
    threads: int | None = Field(
        None, ge=1, description="CPU threads of the serving runtime; by default all it may use."
    )
    model_poll_s: float = Field(
        30.0,
        ge=0.1,
        le=86_400,
        description="How often the service looks whether its alias points to another version, seconds.",
    )
    queue: int = Field(
        16, ge=0, description="Requests that may wait while others are answered; one more is told to come again."
    )
    prediction_cache_mb: int = Field(
        256, ge=0, description="How much of what it predicted lately the service keeps in memory, MB; 0 keeps nothing."
    )
    counters: Path | None = Field(
        None, description="Folder where the service counts what it is asked; by default below the home."
    )
    host: str = Field("127.0.0.1", description="Address the service binds to.")
    port: int = Field(8080, ge=1, le=65535, description="Port the service binds to.")
    published: str = Field(
        "", description="Address and port where others reach the service when that is another one, as for a container."
    )
    api_keys: SecretStr = Field(
        SecretStr(""),
        description="Comma-separated keys, one of which every request must bring; none is asked for when empty.",
    )
    open: bool = Field(False, description="Let others than this machine reach the service, by any name, without a key.")
    rate_limit: int | None = Field(
        None, ge=1, description="Requests a minute that each key may make; by default any number."
    )
    cors_origins: str = Field(
        "", description="Comma-separated origins whose pages may ask the service from a browser; * for all."
    )

    @field_validator("cors_origins")
    @classmethod
    def _have_schemes(cls, origins: str) -> str:
        for origin in comma_separated(origins):
            if "://" not in origin and origin not in ("*", "null"):
                raise ValueError(f"{origin} has no scheme, as in https://{origin}")
        return origins

    @field_validator("image_url_hosts")
    @classmethod
    def _are_names(cls, hosts: str) -> str:
        for host in comma_separated(hosts):
            if "/" in host:
                raise ValueError(f"{host} is an address; a host is named as in images.example.org")
        return hosts

    @property
    def lake(self) -> Lake:
        """Where prepared data lies."""
        return Lake(self.home.absolute())

    @property
    def counters_folder(self) -> Path:
        """Folder of the service's counters."""
        return (self.counters or self.home / "counters").absolute()

    @property
    def imagery_cache_folder(self) -> Path:
        """Folder of the tile cache."""
        return (self.imagery_cache or self.home / "imagery-cache").absolute()

    @property
    def keys(self) -> tuple[str, ...]:
        """The service's keys; secret.

        Raises:
            SettingsError: one has signs that do not come through a header as they are.
        """
        keys = comma_separated(self.api_keys.get_secret_value())
        if not all(key.isascii() and key.isprintable() for key in keys):
            raise SettingsError(
                "FOOTPRINT_API_KEYS: a key has other signs than ASCII's, so nobody could bring it.",
                fix="Make keys of letters, digits and marks of ASCII.",
            )
        return keys

    def check_reach(self) -> None:
        """Make sure that nobody but this machine reaches a service that asks for no key.

        Raises:
            SettingsError: others would, or a key opens nothing.
        """
        host = (self.published.rpartition(":")[0] if self.published else self.host).strip("[]")
        if self.keys or self.open or _is_loopback(host):
            return
        raise SettingsError(
            f"The service would answer whoever reaches {host or 'any address'}, and no key is set.",
            fix="Set FOOTPRINT_API_KEYS, bind to 127.0.0.1, or set FOOTPRINT_OPEN=true if a proxy asks for a password.",
        )

    @property
    def mlflow_uri(self) -> str:
        """The tracking and registry URI in force."""
        return self.tracking_uri or f"sqlite:///{self.mlflow_file.as_posix()}"

    @property
    def mlflow_file(self) -> Path:
        """MLflow's database when no other one is named."""
        return self.home.absolute() / "mlflow.db"

    @property
    def mlflow_is_server(self) -> bool:
        """Whether that is a server somewhere, and no database that is opened from here."""
        return self.mlflow_uri.startswith("http")

    @property
    def mlflow_artifacts(self) -> Path | None:
        """Folder of MLflow's artifacts; None where a server keeps them."""
        return None if self.mlflow_is_server else self.lake.artifacts


def comma_separated(text: str) -> tuple[str, ...]:
    """What stands between the commas of a setting."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _absolute(settings: Settings) -> dict[str, object]:
    """Paths as they are meant from here, and by whom."""
    names = ("retrain_spec", "imagery_sources", "imagery_cache", "counters")
    given = {name: path for name in names if (path := getattr(settings, name))}
    paths: dict[str, object] = {name: without_tilde(path).absolute() for name, path in given.items()}
    if settings.tracking_uri and (relative := re.fullmatch(r"sqlite:///(?!/)(.+)", settings.tracking_uri)):
        paths["tracking_uri"] = f"sqlite:///{Path(relative[1]).absolute().as_posix()}"
    imagery = without_tilde(settings.imagery)
    if "://" not in settings.imagery and "{" not in settings.imagery and imagery.is_file():
        paths["imagery"] = str(imagery.absolute())
    return paths


def _tell_unknown() -> None:
    """Warn of variables that look like the project's own and that nobody reads."""
    known = [name.upper() for name in Settings.model_fields]
    for variable in sorted(os.environ):
        name = variable.upper().removeprefix(_PREFIX)
        if variable.upper().startswith(_PREFIX) and name not in known and name != _OF_TESTS:
            _warn_of(variable, *get_close_matches(name, known, n=1))


@cache  # once in each process
def _warn_of(variable: str, meant: str = "") -> None:
    log.warning("%s is set, but nobody reads it.%s", variable, f" Is {_PREFIX}{meant} meant?" if meant else "")


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, with keyword overrides (`None` values are ignored).

    What is relative is made absolute, but for the home: the programs that are started run in other folders.

    Raises:
        SettingsError: a variable has a value that makes no sense; names it. Or the home's name cannot be used.
    """
    _tell_unknown()
    try:
        settings = Settings(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]
        check_name(settings.home)
        return settings.model_copy(update=_absolute(settings))
    except ValidationError as error:
        name, wrong = field_problems(error)[0]
        variable = name if name.isupper() else f"FOOTPRINT_{name.upper()}"
        raise SettingsError(f"{variable}: {wrong}.", fix="See .env.example for every variable.") from None
