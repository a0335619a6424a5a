"""The lock files: whole, hashed, of one mind, and silent about where packages come from."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = {path.stem: path.read_text() for path in (ROOT / "requirements").glob("*.lock")}
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*(?:\[[a-z,-]+\])?)==(\S+)", re.M)


def test_there_is_one_for_each_kind_of_installation() -> None:
    assert set(LOCKS) == {"dev", "gpu", "installer", "run", "serve"}


@pytest.mark.parametrize("name", sorted(LOCKS))
def test_every_package_is_pinned_with_hashes(name: str) -> None:
    entries = re.split(r"\n(?=[a-z0-9])", LOCKS[name].strip())
    assert entries
    for entry in entries:
        assert PIN.match(entry), entry.splitlines()[0]
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


@pytest.mark.parametrize("name", sorted(LOCKS))
def test_no_package_index_is_named(name: str) -> None:
    assert "://" not in LOCKS[name]
    assert "--index" not in LOCKS[name]


@pytest.mark.parametrize("name", ["run", "serve", "gpu"])
def test_versions_are_those_of_the_environment_that_tests_run_in(name: str) -> None:
    tested = set(PIN.findall(LOCKS["dev"]))
    known = {package for package, _ in tested}
    assert {pin for pin in PIN.findall(LOCKS[name]) if pin[0] in known} <= tested


def test_the_service_needs_neither_tensorflow_nor_dagster_and_openvino_reports_to_nobody() -> None:
    serving = {package for package, _ in PIN.findall(LOCKS["serve"])}
    assert not serving & {"tensorflow", "tensorflow-cpu", "keras", "dagster", "mlflow", "pandas", "geopandas"}
    for text in LOCKS.values():
        assert "openvino-telemetry==" not in text
