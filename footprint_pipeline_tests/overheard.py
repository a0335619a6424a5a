"""What functions are told while a test runs: they do as ever."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


def overhear(monkeypatch: pytest.MonkeyPatch, module: ModuleType, *names: str) -> dict[str, Any]:
    """The keyword arguments that functions of a module were last called with, all together."""
    told: dict[str, Any] = {}

    def heard(function: Callable[..., Any]) -> Callable[..., Any]:
        def hear(*given: Any, **how: Any) -> Any:
            told.update(how)
            return function(*given, **how)

        return hear

    for name in names:
        monkeypatch.setattr(module, name, heard(getattr(module, name)))
    return told
