import re
import tomllib
from pathlib import Path

import pytest
from pydantic import SecretStr

from footprint_pipeline.errors import RequestError, SettingsError
from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.imagery import open_imagery, open_sources
from footprint_pipeline.footprints.mercator import Bounds, tile_at
from footprint_pipeline.footprints.sources import ImagerySources, SourceSpec
from footprint_pipeline.footprints.tile_cache import FILE
from footprint_pipeline.footprints.xyz import XyzImagery
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.footprints.red_city import TileServer, http_server, write_city

HERE = tile_at(-43.2, -22.9, 18)
TOKEN = "pk.very-secret"


def sources(folder: Path, text: str, **settings: object) -> ImagerySources:
    file = folder / "sources.toml"
    file.write_text(text)
    return open_sources(Settings(home=folder / "home", imagery_sources=file, **settings))


def test_a_file_names_sources_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILES_KEY", TOKEN)
    write_city(tmp_path / "city.tif", Bounds(-43.2, -22.9, -43.199, -22.899), [])
    with http_server(TileServer([])) as server:
        found = sources(
            tmp_path,
            f"""
            [city]
            path = "city.tif"
            attribution = "© the city"
            date = 2024-05-01

            [world]
            mapbox = "${{TILES_KEY}}"

            [aerial]
            default = true
            url = "{server.address}/{{z}}/{{x}}/{{y}}.png?key=${{TILES_KEY}}"
            headers = {{Authorization = "Bearer ${{TILES_KEY}}"}}
            attribution = "© the survey"
            max_zoom = 18
            date = "summer 2023"
            """,
        )
        assert list(found) == ["city", "world", "aerial"]
        assert found.choose(None) is found.default is found["aerial"]
        assert found.default_name == "aerial"
        patch = found.default.read(HERE.bounds_3857, 256, 256)
    assert (patch.source, patch.date) == ("aerial, zoom 18", "summer 2023")
    path, headers = server.asked[-1]
    assert path.endswith(f"?key={TOKEN}")
    assert headers["Authorization"] == f"Bearer {TOKEN}"
    assert (tmp_path / "home" / "imagery-cache" / FILE).is_file()
    city, world = found.choose("city"), found.choose("world")
    assert isinstance(city, GeoTiffImagery)
    assert (city.name, city.attribution, city.date) == ("city", "© the city", "2024-05-01")
    assert isinstance(world, XyzImagery)
    assert "Mapbox" in world.attribution
    assert TOKEN not in repr([found, dict(found), vars(found.default), vars(world)])


def test_the_first_is_the_default_and_an_unknown_one_is_the_askers_mistake(tmp_path: Path) -> None:
    found = sources(tmp_path, '[a]\nurl = "http://t/{z}/{x}/{y}"\n[b]\nurl = "http://u/{z}/{x}/{y}"')
    assert found.default_name == "a"
    with pytest.raises(RequestError, match="no imagery called 'c'") as error:
        found.choose("c")
    assert error.value.fix == "Ask for one of: a, b."


def test_a_tilde_means_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "me").mkdir()
    write_city(tmp_path / "me" / "city.tif", Bounds(-43.2, -22.9, -43.199, -22.899), [])
    named = sources(tmp_path, '[city]\npath = "~/city.tif"').default
    only = open_imagery(Settings(home=tmp_path / "home", imagery="~/city.tif"))
    assert named.extent_wgs84 == only.extent_wgs84 == GeoTiffImagery(tmp_path / "me" / "city.tif").extent_wgs84


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names no source"),
        ("[a\n", "not TOML"),
        ("a = 1", "source 'a': Input should be a valid dictionary"),
        ('["a b"]\nurl = "http://t/{z}/{x}/{y}"', "source 'a b': not a name"),
        ("[a]", "source 'a': give exactly one of url, path and mapbox"),
        ('[a]\nurl = "http://t/{z}/{x}/{y}"\npath = "x"', "source 'a': give exactly one"),
        ('[a]\nurl = "http://t/{z}/{x}/{y}"\nzoom = 3', "source 'a': zoom: Extra inputs"),
        ('[a]\nurl = "http://t/{z}/{x}"', "source 'a': The imagery template is not"),
        ('[a]\nurl = "http://t/{z}/{x}/{y}"\nmin_zoom = 9\nmax_zoom = 3', "source 'a': .*coarsest zoom 9"),
        ('[a]\npath = "gone.tif"', "source 'a': a: missing"),
        ('[a]\npath = "gone.tif"\nheaders = {X = "1"}', "source 'a': headers belongs to a source with a url"),
        ('[a]\nmapbox = "${NOT_THERE}"', "source 'a': NOT_THERE is not set"),
        ('[a]\nurl = "http://t/{z}/{x}/{y}"\nheaders = {X = "${NOT_THERE}"}', "source 'a': NOT_THERE is not set"),
        (
            '[a]\nurl = "http://t/{z}/{x}/{y}"\ndefault = true\n[b]\nurl = "http://t/{z}/{x}/{y}"\ndefault = true',
            "a and b are each the default",
        ),
    ],
)
def test_mistakes_are_named_with_file_and_source(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=rf"sources\.toml[:,] {reason}") as error:
        sources(tmp_path, text)
    assert error.value.fix


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: cannot be read"):
        open_sources(Settings(imagery_sources=tmp_path / "none.toml"))


def test_mistakes_tell_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILES_KEY", TOKEN)
    for text in (
        '[a]\nurl = "http://${TILES_KEY}@t/${TILES_KEY}/{z}/{x}/{style}"',
        f'[a]\nurl = "http://t/{{z}}/{{x}}/{{y}}?key={TOKEN}"\nzoom = "{TOKEN}"',
        f'[a]\nmapbox = "{TOKEN}"\nheaders = {{X = "{TOKEN}"}}',
    ):
        with pytest.raises(SettingsError) as error:
            sources(tmp_path, text)
        assert TOKEN not in str(error.value)


def test_variables_that_hold_no_secret_tell_sources_apart_and_those_that_do_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with http_server(TileServer([])) as server:

        def asked(layer: str, token: str) -> int:
            monkeypatch.setenv("LAYER", layer)
            monkeypatch.setenv("MY_TOKEN", token)
            before = len(server.asked)
            url = server.address + f"/${{LAYER}}/${{MY_TOKEN}}/{{z}}/{{x}}/{{y}}.png?key={token}"
            sources(tmp_path, f'[a]\nurl = "{url}"\nmax_zoom = 18\ntile_px = 256').default.read(
                HERE.bounds_3857, 256, 256
            )
            return len(server.asked) - before

        assert [asked("city", "one"), asked("city", "two"), asked("land", "two")] == [1, 0, 1]


def test_the_documented_example_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    specs = {name: SourceSpec.model_validate(table) for name, table in tomllib.loads(example).items()}
    assert [name for name, spec in specs.items() if spec.default] == ["aerial"]
    assert specs["city"].date == "2024-05-01"


def test_without_a_file_the_settings_name_the_only_source(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, imagery="https://tiles.example.com/{TileMatrix}/{TileCol}/{TileRow}")
    found = open_sources(settings)
    assert list(found) == ["default"]
    assert isinstance(found.default, XyzImagery)
    assert found.default.name == open_imagery(settings).name == "tiles.example.com"
    assert list(tmp_path.iterdir()) == []  # nothing is made before a tile is kept


@pytest.mark.parametrize(("limit_mb", "kept"), [(1, True), (0, False)])
def test_the_cache_is_where_the_settings_say_and_can_be_turned_off(tmp_path: Path, limit_mb: int, kept: bool) -> None:
    with http_server(TileServer([])) as server:
        settings = Settings(
            home=tmp_path / "home",
            imagery=server.address + "/{z}/{x}/{y}.png",
            imagery_cache=tmp_path / "tiles",
            imagery_cache_mb=limit_mb,
            mapbox_access_token=SecretStr(TOKEN),
        )
        open_imagery(settings).read(HERE.bounds_3857, 64, 64)
    assert (tmp_path / "tiles" / FILE).is_file() == kept
    assert not (tmp_path / "home").exists()
