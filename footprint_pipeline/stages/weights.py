"""Where a training starts from when not at random: a file, or a version in the registry."""

from pathlib import Path

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.settings import Settings

SUFFIXES = (".keras", ".h5")


def find_weights(settings: Settings, weights: str) -> Path:
    """The file that holds weights, fetched when it is in the registry.

    Args:
        settings: which registry.
        weights: a `.keras` or `.weights.h5` file; or the alias or the number of a registered version.

    Raises:
        SettingsError: there is no such file.
        RegistryError: there is no such version, or the registry cannot be reached.
    """
    if weights.endswith(SUFFIXES):
        path = Path(weights).absolute()
        if not path.is_file():
            raise SettingsError(
                f"No weights are at {path}.", fix="Give a .keras or .weights.h5 file, an alias or a version's number."
            )
        return path
    from footprint_pipeline.registry import Registry  # MLflow takes a second, and most trainings need none of it

    registry = Registry(settings.mlflow_uri, settings.model_name)
    found = registry.resolve(version=weights) if weights.isdecimal() else registry.resolve(alias=weights)
    return registry.pull_keras(version=found.version, into=settings.home.absolute() / "pulled")
