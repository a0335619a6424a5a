"""The home as a whole: moved, linked to, of a name that databases misread, and opened by several at once."""

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.home import check_place, keep_place
from footprint_pipeline.orchestration.local import prepare_home
from footprint_pipeline.orchestration.ui import check_ports
from footprint_pipeline.settings import Settings, load_settings


def test_a_home_stays_where_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, moved = tmp_path / "first", tmp_path / "moved"
    check_place(first)  # nobody knows of it
    monkeypatch.chdir(tmp_path)
    keep_place(Path("first"))
    check_place(first)
    first.rename(moved)
    for look in (check_place, keep_place, lambda home: prepare_home(Settings(home=home))):
        with pytest.raises(SettingsError, match=f"{moved} was made at {first}, and what is kept in it names") as caught:
            look(moved)
        assert caught.value.fix.endswith(f"ln -s {moved} {first}")
    first.mkdir()  # another one, perhaps a copy's original
    with pytest.raises(SettingsError, match="was made at") as caught:
        check_place(moved)
    assert caught.value.fix == "It is a copy: use that one, or make a new home."
    first.rmdir()
    first.symlink_to(moved)
    check_place(moved)
    check_place(first)
    assert (moved / ".place").read_text() == f"{first}\n"


@pytest.mark.parametrize("name", ["a?b", "w%41"])
def test_a_home_whose_name_databases_misread_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="means something else in the address of a database"):
        load_settings(home=tmp_path / name)
    load_settings(home=tmp_path / "100% mine #1 ü")


@pytest.mark.slow
def test_several_processes_may_open_a_new_home_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from footprint_pipeline.orchestration.local import *; import mlflow\n"
        "from footprint_pipeline.settings import load_settings\n"
        "settings, ready = load_settings(home=sys.argv[1]), Path(sys.argv[2])\n"
        "ready.touch()\n"
        "while len(list(ready.parent.glob('ready*'))) < 3: time.sleep(0.01)\n"
        "with open_instance(prepare_home(settings), settings) as instance:\n"
        "    instance.get_runs()\n"
        "    mlflow.MlflowClient(settings.mlflow_uri).create_experiment(ready.name)\n"
    )
    commands = [[sys.executable, "-c", code, tmp_path / "home", tmp_path / f"ready{number}"] for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        for done in pool.map(lambda each: subprocess.run(each, capture_output=True, text=True, timeout=120), commands):
            assert done.returncode == 0, done.stderr[-2000:]


def test_a_port_that_is_taken_is_named_before_anything_is_started(tmp_path: Path) -> None:
    with socket.socket() as one, socket.socket() as other:
        for taken in (one, other):
            taken.bind(("127.0.0.1", 0))
            taken.listen()
        port, free = one.getsockname()[1], other.getsockname()[1]
        other.close()
        settings = Settings(home=tmp_path)
        with pytest.raises(SettingsError, match=rf"127\.0\.0\.1:{port} cannot be had") as caught:
            check_ports(settings, host="127.0.0.1", port=port, mlflow_port=free)
        assert "--port" in caught.value.fix
        with pytest.raises(SettingsError, match=f":{port} cannot be had") as caught:
            check_ports(settings, host="127.0.0.1", port=free, mlflow_port=port)
        assert "--mlflow-port" in caught.value.fix
        elsewhere = Settings(home=tmp_path, tracking_uri="http://mlflow:5000")
        check_ports(elsewhere, host="127.0.0.1", port=free, mlflow_port=port)
        with pytest.raises(SettingsError, match=f":{free} cannot be had") as caught:
            check_ports(settings, host="127.0.0.1", port=free, mlflow_port=free)
        assert "--mlflow-port" in caught.value.fix
        for host in ("192.0.2.1", "no such host"):
            with pytest.raises(SettingsError) as caught:
                check_ports(settings, host=host, port=free, mlflow_port=port)
            assert "--host" in caught.value.fix
