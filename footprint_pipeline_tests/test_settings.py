from pathlib import Path

import pytest
from pydantic import ValidationError

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.settings import Settings, load_settings

ALL = "0.0.0.0"  # noqa: S104 - nothing binds to it


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the developer's own."""
    for name, field in Settings.model_fields.items():
        monkeypatch.delenv(f"FOOTPRINT_{name.upper()}", raising=False)
        if isinstance(field.validation_alias, str):
            monkeypatch.delenv(field.validation_alias, raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_defaults_keep_all_state_in_one_folder(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.mlflow_uri == f"sqlite:///{tmp_path}/.footprint/mlflow.db"
    assert settings.alias == "champion"


def test_the_environment_overrides_the_defaults_and_arguments_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FOOTPRINT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("FOOTPRINT_S3_REQUESTER_PAYS", "true")
    monkeypatch.setenv("FOOTPRINT_THREADS", "")
    settings = load_settings(home=None)
    assert settings.home == tmp_path / "state"
    assert settings.mlflow_uri == "http://mlflow:5000"
    assert settings.s3_requester_pays is True
    assert settings.threads is None
    assert load_settings(home=tmp_path / "other", tracking_uri="sqlite:////x.db").mlflow_uri == "sqlite:////x.db"
    assert load_settings(home=tmp_path / "other").home == tmp_path / "other"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FOOTPRINT_PORT", "eighty"),
        ("FOOTPRINT_PORT", "70000"),
        ("FOOTPRINT_THREADS", "0"),
        ("FOOTPRINT_S3_SIGNED", "perhaps"),
        ("FOOTPRINT_MODEL_POLL_S", "inf"),
        ("FOOTPRINT_MODEL_POLL_S", "nan"),
        ("FOOTPRINT_MODEL_POLL_S", "1e300"),
        ("FOOTPRINT_MODEL_POLL_S", "1e-9"),
        ("FOOTPRINT_CORS_ORIGINS", "https://maps.example.org, maps.example.org"),
        ("FOOTPRINT_IMAGE_URL_HOSTS", "https://images.example.org"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"^{variable}: ") as caught:
        load_settings()
    assert ".env.example" in str(caught.value)


def test_origins_and_hosts_that_make_sense_are_taken() -> None:
    origins, hosts = "https://maps.example.org, http://localhost:3000/,null", "127.0.0.1, Images.Example.com"
    settings = load_settings(cors_origins=origins, image_url_hosts=hosts)
    assert (settings.cors_origins, settings.image_url_hosts) == (origins, hosts)
    assert load_settings(cors_origins="*").cors_origins == "*"


def test_a_variable_that_nobody_reads_is_told_once_with_the_one_that_is_meant(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("FOOTPRINT_API_KEY", "FOOTPRINT_WEATHER", "FOOTPRINT_REAL_DATA", "footprint_port"):
        monkeypatch.setenv(name, "8081")
    for _ in range(2):
        assert load_settings().port == 8081
    assert [record.getMessage() for record in caplog.records] == [
        "FOOTPRINT_API_KEY is set, but nobody reads it. Is FOOTPRINT_API_KEYS meant?",
        "FOOTPRINT_WEATHER is set, but nobody reads it.",
    ]


def test_the_token_never_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPBOX_ACCESS_TOKEN", "pk.secret")
    settings = load_settings()
    assert "pk.secret" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert settings.mapbox_access_token is not None
    assert settings.mapbox_access_token.get_secret_value() == "pk.secret"


def test_settings_do_not_change(tmp_path: Path) -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.home = tmp_path
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    "reach",
    [
        {},
        {"host": "localhost"},
        {"host": "::1"},
        {"host": ALL, "published": "127.0.0.1:8080"},
        {"host": ALL, "published": "[::1]:8080"},
        {"host": ALL, "api_keys": "a-key"},
        {"host": ALL, "open": True},
    ],
)
def test_a_service_for_this_machine_or_with_keys_may_start(reach: dict) -> None:
    load_settings(**reach).check_reach()


@pytest.mark.parametrize(
    "reach",
    [
        {"host": ALL},
        {"host": "::"},
        {"host": "192.168.1.7"},
        {"host": ALL, "published": "8080"},
        {"host": ALL, "published": "0.0.0.0:8080"},
        {"host": "127.0.0.1", "published": "maps.example.org:80"},
        {"host": ALL, "api_keys": " , "},
    ],
)
def test_a_service_that_others_reach_without_a_key_may_not(reach: dict) -> None:
    with pytest.raises(SettingsError, match="no key is set") as refused:
        load_settings(**reach).check_reach()
    assert "FOOTPRINT_API_KEYS" in refused.value.fix


def test_keys_are_a_list_that_never_prints() -> None:
    settings = load_settings(api_keys=" first-key, second-key,")
    assert settings.keys == ("first-key", "second-key")
    assert "first-key" not in repr(settings) + settings.model_dump_json()


def test_paths_are_meant_from_where_the_command_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "city.tif").touch()
    for name, value in {
        "MLFLOW_TRACKING_URI": "sqlite:///my.db", "FOOTPRINT_IMAGERY": "city.tif", "FOOTPRINT_COUNTERS": "counted",
        "FOOTPRINT_IMAGERY_CACHE": "kept", "FOOTPRINT_RETRAIN_SPEC": "mine.yaml",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.tracking_uri == f"sqlite:///{tmp_path / 'my.db'}"
    assert settings.imagery == str(tmp_path / "city.tif")
    assert (settings.counters, settings.imagery_cache) == (tmp_path / "counted", tmp_path / "kept")
    assert settings.retrain_spec == tmp_path / "mine.yaml"
    for name, value in {
        "MLFLOW_TRACKING_URI": "postgresql://db/mlflow", "FOOTPRINT_IMAGERY": "https://tiles.example.org/{z}/{x}/{y}",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.tracking_uri == "postgresql://db/mlflow"
    assert settings.imagery == "https://tiles.example.org/{z}/{x}/{y}"


def test_a_tilde_means_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "city.tif").touch()
    settings = load_settings(imagery="~/city.tif", imagery_sources="~/sources.toml", counters="~nobody-at-all/counted")
    assert settings.imagery == str(tmp_path / "city.tif")
    assert settings.imagery_sources == tmp_path / "sources.toml"
    assert settings.counters == Path("~nobody-at-all/counted").absolute()
