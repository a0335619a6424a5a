"""Which registry and which alias the settings name, as the model that the service follows."""

import json
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

from footprint_pipeline.settings import Settings
from footprint_pipeline.versions import Pointed, pointed
from serving.model_store import ModelSource, ModelStore

_PATIENCE_S = 10
"""How long a server may take to tell."""


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
    """The registry of the settings. MLflow's client is imported when there is no other way, for it takes its time.

    Most of what is asked is where the alias points, and a server tells that in one line of JSON.
    """

    def __init__(self, settings: Settings) -> None:
        self.model_name = settings.model_name
        self._uri = settings.mlflow_uri

    def pointed(self, alias: str) -> Pointed:
        """As `Registry.pointed`."""
        imported = "_registry" in vars(self)  # then it costs nothing to ask it
        told = None if imported else told_version(self._uri, self.model_name, alias)
        return told or self._registry.pointed(alias)

    def pull(self, *, version: str, into: Path, onnx: bool = False) -> Path:
        """As `Registry.pull`."""
        return self._registry.pull(version=version, into=into, onnx=onnx)

    @cached_property
    def _registry(self) -> ModelSource:
        from footprint_pipeline.registry import Registry

        return Registry(self._uri, self.model_name)


def told_version(server: str, model_name: str, alias: str) -> Pointed | None:
    """The version that an alias points at, by MLflow's REST interface.

    Args:
        server: address of the MLflow server, or of a database.
        model_name: of the registered model.
        alias: of one of its versions.

    Returns:
        None where there is none, or where the server asks who is asking, is a database, cannot be reached: MLflow's
        client knows what to do then, or what to say.
    """
    if urlsplit(server).scheme not in ("http", "https"):
        return None
    question = urlencode({"name": model_name, "alias": alias})
    try:
        address = f"{server.rstrip('/')}/api/2.0/mlflow/registered-models/alias?{question}"
        with urlopen(address, timeout=_PATIENCE_S) as answer:  # noqa: S310 - http or https, as looked at above
            told = json.load(answer)["model_version"]
            tags = {tag["key"]: tag["value"] for tag in told.get("tags", ())}
            return pointed(str(told["version"]), run_id=told.get("run_id", ""), tags=tags)
    except (OSError, HTTPException, ValueError, LookupError, TypeError, AttributeError):
        return None
