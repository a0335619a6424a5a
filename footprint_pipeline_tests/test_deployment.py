"""The composed stack as it is written down: files that must agree with each other and with the settings.

Whether the images build and the containers run is not tested here; docs/operations.md says how to see that.
"""

import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from footprint_pipeline.lake import Lake
from footprint_pipeline.orchestration.lost_runs import end_lost_runs
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.catalog import BUILT_IN
from footprint_pipeline.spacenet.sources import fetch
from footprint_pipeline.spacenet.synthetic import city as synthetic
from footprint_pipeline_tests.footprints.red_city import Answers, http_server
from footprint_pipeline_tests.orchestration.test_lost_runs import run_under_way

ROOT = Path(__file__).parents[1]
DOCKERFILES = (ROOT / "Dockerfile", ROOT / "serving" / "Dockerfile")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EXAMPLE = (ROOT / ".env.example").read_text()


def environment_name(field: str) -> str:
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else f"FOOTPRINT_{field.upper()}"


def example() -> dict[str, tuple[str, str]]:
    """Variable → (the comment above it, its value)."""
    paragraphs = [paragraph.splitlines() for paragraph in EXAMPLE.split("\n\n")]
    found = {}
    for lines in paragraphs:
        comment = " ".join(line.removeprefix("# ") for line in lines if line.startswith("# "))
        for line in lines:
            if match := re.fullmatch(r"#([A-Z][A-Z0-9_]*)=(.*)", line):
                found[match[1]] = (comment, match[2])
    return found


# ---- .env.example ----


@pytest.mark.parametrize("field", Settings.model_fields)
def test_the_example_lists_every_setting_with_its_description_and_default(field: str) -> None:
    comment, value = example()[environment_name(field)]
    default = Settings.model_fields[field].default
    assert comment.startswith(str(Settings.model_fields[field].description))
    shown = "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
    assert shlex.split(value) == [word for word in [shown] if word]  # as a shell takes it, too


def test_the_example_lists_nothing_that_nobody_reads() -> None:
    settings = {environment_name(field) for field in Settings.model_fields}
    assert set(example()) - settings == asked_of_env()


def test_the_example_sets_nothing_by_itself() -> None:
    assert [line for line in EXAMPLE.splitlines() if line and not line.startswith("#")] == []


def asked_of_env() -> set[str]:
    """The variables that docker-compose.yml takes from .env and that are no settings."""
    text = (ROOT / "docker-compose.yml").read_text()
    passed_on = {
        name for service in SERVICES.values() for name, value in service.get("environment", {}).items() if value is None
    }
    settings = {environment_name(field) for field in Settings.model_fields}
    return (set(re.findall(r"\$\{([A-Z_]+)", text)) | passed_on) - settings


# ---- docker-compose.yml ----


def test_what_there_is() -> None:
    assert set(SERVICES) == {"postgres", "mlflow", "code", "webserver", "daemon", "city", "service"}


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_built_from_files_that_exist(name: str) -> None:
    service = SERVICES[name]
    if name == "postgres":
        assert re.fullmatch(r"docker\.io/library/postgres:\d+", service["image"])
        return
    build = service["build"]
    assert (ROOT / build["context"] / build.get("dockerfile", "Dockerfile")) in DOCKERFILES
    assert (service["image"] == "footprint-service:local") == (name == "service")


@pytest.mark.parametrize("name", SERVICES)
def test_mounts_and_dependencies_exist(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source = mount.split(":")[0]
        assert source in COMPOSE["volumes"] or (source.startswith("./") and (ROOT / source).is_file())
    for other, how in SERVICES[name].get("depends_on", {}).items():
        once = SERVICES[other]["restart"] == "no"
        assert how["condition"] == ("service_completed_successfully" if once else "service_healthy")


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"city"}))
def test_everything_lasting_is_watched_and_restarted(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    if name == "service":
        assert "HEALTHCHECK" in (ROOT / "serving" / "Dockerfile").read_text()
    else:
        # CMD-SHELL: arrays with blanks in them are split by some engines.
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD-SHELL"


def test_answers_under_way_have_less_time_than_the_container() -> None:
    given = re.search(r"^graceful_timeout = (\d+)", (ROOT / "serving" / "gunicorn.conf.py").read_text(), re.MULTILINE)
    assert int(given[1]) < int(SERVICES["service"]["stop_grace_period"].removesuffix("s"))


def test_ports_are_open_to_this_machine_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "mlflow": ["${MLFLOW_PUBLISH:-127.0.0.1:5000}:5000"],
        "webserver": ["${DAGSTER_PUBLISH:-127.0.0.1:3000}:3000"],
        "service": ["${SERVICE_PUBLISH:-127.0.0.1:8080}:8080"],
    }


def test_every_setting_reaches_a_container_or_is_set_in_the_image() -> None:
    given = {name for service in SERVICES.values() for name in service.get("environment", {})}
    image = (ROOT / "serving" / "Dockerfile").read_text()
    missing = {environment_name(field) for field in Settings.model_fields} - given
    assert {name for name in missing if f"{name}=" not in image} == set()


def test_dagsters_containers_share_settings_and_state() -> None:
    three = [SERVICES[name] for name in ("code", "webserver", "daemon")]
    assert all(service["environment"] == three[0]["environment"] for service in three)
    assert all("state:/state" in service["volumes"] for service in three)


def test_webserver_and_daemon_look_where_the_code_location_listens() -> None:
    server = yaml.safe_load((ROOT / "deploy" / "workspace.yaml").read_text())["load_from"][0]["grpc_server"]
    assert server["host"] == "code"
    assert 'CMD ["sh", "deploy/start-code-location.sh"]' in DOCKERFILES[0].read_text()
    assert f"--port {server['port']} " in (ROOT / "deploy" / "start-code-location.sh").read_text()
    assert f"--port {server['port']}" in SERVICES["code"]["healthcheck"]["test"][1]
    for name in ("webserver", "daemon"):
        assert SERVICES[name]["command"][-2:] == ["--workspace", "deploy/workspace.yaml"]


def test_mlflow_answers_to_the_name_that_the_others_use() -> None:
    hosts = next(part for part in SERVICES["mlflow"]["command"] if part.startswith("--allowed-hosts="))
    assert {"mlflow:*", "localhost:*"} <= set(hosts.removeprefix("--allowed-hosts=").split("$")[0].split(","))


def test_the_service_can_write_to_its_cache_and_its_counters_only() -> None:
    service = SERVICES["service"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["volumes"] == ["cache:/cache", "counters:/counters", "state:/state:ro"]


def test_runs_read_what_the_service_counts_and_cannot_change_it() -> None:
    assert "counters:/counters:ro" in SERVICES["code"]["volumes"]
    assert {SERVICES[name]["environment"]["FOOTPRINT_COUNTERS"] for name in ("code", "service")} == {"/counters"}


def test_the_service_knows_no_password_of_the_database() -> None:
    assert not [name for name in SERVICES["service"]["environment"] if name.startswith(("PG", "POSTGRES", "AWS"))]


def test_the_default_imagery_is_the_city_that_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class DrawnError(Exception):
        pass

    def stand_in(folder: Path, spec: object = None) -> None:
        raise DrawnError(folder)

    monkeypatch.setattr(synthetic, "write_city", stand_in)
    city = BUILT_IN["AOI_0_Synthetic"]
    with pytest.raises(DrawnError) as drawn:
        fetch(city, Lake(tmp_path).aoi(city.name).raw, settings=Settings(home=tmp_path))
    folder = Path(drawn.value.args[0]).relative_to(tmp_path)
    imagery = SERVICES["service"]["environment"]["FOOTPRINT_IMAGERY"]
    assert imagery == f"${{FOOTPRINT_IMAGERY:-/state/{folder.as_posix()}/mosaic.tif}}"


# ---- images ----


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_no_secret_gets_into_an_image(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"password|token|secret|credential", text, re.IGNORECASE)
    assert ".env" not in text


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_images_start_from_the_same_base_and_run_without_privileges(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert "ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm" in lines
    assert [line for line in lines if line.startswith("FROM ")] == ["FROM ${PYTHON_IMAGE}"]
    assert [line for line in lines if line.startswith("USER ")] == ["USER footprint"]
    assert all("--require-hashes" in line for line in lines if "pip install" in line and ".lock" in line)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_what_is_copied_is_let_through(path: Path) -> None:
    ignored, *rest = (line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#"))
    assert ignored == "*"
    admitted = {line[1:] for line in rest if line.startswith("!")}
    copied = {
        source for line in path.read_text().splitlines() if line.startswith("COPY ") for source in line.split()[1:-1]
    }
    assert copied <= admitted
    assert not any(name.startswith((".", "*")) for name in admitted)


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", ""])  # noqa: S104 - it is asked, not bound
def test_the_service_is_found_alive_where_it_is_bound(host: str) -> None:
    text = (ROOT / "serving" / "Dockerfile").read_text().replace("\\\n", "")
    command = re.search(r"^HEALTHCHECK .*? CMD (.*)$", text, re.MULTILINE)[1]
    answers = Answers()
    with http_server(answers) as server:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        variables = {"PATH": path, "FOOTPRINT_HOST": host, "FOOTPRINT_PORT": server.address.rpartition(":")[2]}
        for status in (200, 503):
            answers["/healthz"] = (status, b"")
            done = subprocess.run(["/bin/sh", "-c", command], env=variables, check=False)
            assert done.returncode == int(status != 200)


def test_the_service_is_locked_without_what_it_must_not_need() -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / "serve.lock").read_text(), re.MULTILINE))
    assert {"flask", "gunicorn", "openvino"} <= locked
    assert not locked & {"tensorflow", "tensorflow-cpu", "keras", "dagster", "mlflow"}


# ---- Dagster on PostgreSQL ----


def test_the_composed_instance_only_adds_to_the_common_one() -> None:
    common, added = (yaml.safe_load(text) for text in instance_files())
    assert set(added) == {"storage", "compute_logs", "local_artifact_storage"}
    assert not set(common) & set(added)


def instance_files() -> tuple[str, str]:
    return (ROOT / "dagster.yaml").read_text(), (ROOT / "deploy" / "postgres-storage.yaml").read_text()


@pytest.fixture(scope="module")
def postgres() -> Iterator[dict[str, str]]:
    """A PostgreSQL of its own, with the two databases; libpq's variables that lead to it."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [
        Path(found).resolve().parent for found in [shutil.which("initdb")] if found
    ]
    if not programs:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    # It refuses to run as root, so the folder must be one that others reach, and its socket's path must be short:
    # TMPDIR may be neither.
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as folder:
        if user:
            shutil.chown(folder, user, user)
        variables = {"PGHOST": folder, "PGPORT": "5432", "PGUSER": "footprint"}  # the port only names the socket

        def run(program: str, *arguments: str) -> None:
            subprocess.run(
                [str(programs[-1] / program), *arguments],
                check=True,
                cwd=folder,
                env={**os.environ, **variables},
                stdout=subprocess.DEVNULL,
                user=user,
                group=user,
            )

        control = ("-D", f"{folder}/data", "-w")
        run("initdb", "-D", f"{folder}/data", "-U", "footprint", "--auth=trust", "--no-sync")
        options = f"-k {folder} -c listen_addresses= -c fsync=off"
        run("pg_ctl", *control, "-o", options, "-l", f"{folder}/log", "start")
        try:
            script = (ROOT / "deploy" / "create-mlflow-database.sql").read_text()
            for statement in ("CREATE DATABASE dagster", script):
                run("psql", "--set", "ON_ERROR_STOP=1", "-d", "postgres", "-c", statement)
            yield variables
        finally:
            run("pg_ctl", *control, "-m", "immediate", "stop")


@pytest.fixture
def instance_folder(tmp_path: Path, postgres: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A DAGSTER_HOME as the image makes it; only the volume lies elsewhere."""
    for name, value in postgres.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "dagster.yaml").write_text("".join(instance_files()).replace("/state", str(tmp_path / "state")))
    return str(tmp_path)


def test_dagster_keeps_its_state_in_postgresql(instance_folder: str) -> None:
    @dg.asset
    def something() -> int:
        return 1

    with dg.DagsterInstance.from_config(instance_folder) as instance:
        assert {type(store).__name__ for store in (instance.run_storage, instance.event_log_storage)} == {
            "PostgresRunStorage",
            "PostgresEventLogStorage",
        }
        run_id = dg.materialize([something], instance=instance).run_id
    with dg.DagsterInstance.from_config(instance_folder) as instance:
        assert instance.get_latest_materialization_event(dg.AssetKey("something")) is not None
        assert [run.status for run in instance.get_runs() if run.run_id == run_id] == [dg.DagsterRunStatus.SUCCESS]
    assert {path.name for path in Path(instance_folder).iterdir()} <= {"dagster.yaml", "state"}


def test_runs_lost_with_their_container_count_as_failed(instance_folder: str) -> None:
    script = runpy.run_path(str(ROOT / "deploy" / "end_lost_runs.py"))

    @dg.op
    def nothing() -> None: ...

    @dg.job
    def job() -> None:
        nothing()

    with dg.DagsterInstance.from_config(instance_folder) as instance:
        finished = job.execute_in_process(instance=instance)
        lost = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        waiting = instance.create_run_for_job(job, status=dg.DagsterRunStatus.NOT_STARTED)
        assert script["end_lost_runs"](instance) == 1
        assert script["end_lost_runs"](instance) == 0
        status = {run.run_id: run.status for run in instance.get_runs()}
    assert status[lost.run_id] is dg.DagsterRunStatus.FAILURE
    assert status[waiting.run_id] is dg.DagsterRunStatus.NOT_STARTED
    assert status[finished.run_id] is dg.DagsterRunStatus.SUCCESS


def test_a_run_killed_on_this_host_counts_as_failed_and_one_of_another_host_is_left_alone(
    instance_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dg.DagsterInstance.from_config(instance_folder) as instance:
        before = {run.run_id for run in instance.get_runs()}
        with run_under_way(instance_folder):
            assert end_lost_runs(instance) == 0
            (run_id,) = {run.run_id for run in instance.get_runs()} - before
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(socket, "gethostname", lambda: "another")
            assert end_lost_runs(instance) == 0
        assert end_lost_runs(instance) == 1
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert run.status is dg.DagsterRunStatus.FAILURE
        assert not instance.event_log_storage.get_concurrency_info("gpu").claimed_slots
