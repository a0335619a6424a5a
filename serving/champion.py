"""Which registry and which alias the settings name, as the model that the service follows."""

from functools import cached_property
from pathlib import Path

from footprint_pipeline.settings import Settings
from serving.model_store import ModelSource, ModelStore


def champion_store(settings: Settings) -> ModelStore:
    """What follows the alias of the settings, not yet started."""
    return ModelStore(
        LateRegistry(settings),
        alias=settings.alias,
        cache=settings.home.absolute() / "serving-cache",
        threads=settings.threads,
        poll_s=settings.model_poll_s,
    )


class LateRegistry:
    """The registry of the settings. MLflow's client, which takes its time, is imported when it is first asked."""

    def __init__(self, settings: Settings) -> None:
        self.model_name = settings.model_name
        self._uri = settings.mlflow_uri

    def version(self, alias: str) -> str:
        """As `Registry.version`."""
        return self._registry.version(alias)

    def pull(self, *, version: str, into: Path, onnx: bool = False) -> Path:
        """As `Registry.pull`."""
        return self._registry.pull(version=version, into=into, onnx=onnx)

    @cached_property
    def _registry(self) -> ModelSource:
        from footprint_pipeline.registry import Registry

        return Registry(self._uri, self.model_name)
