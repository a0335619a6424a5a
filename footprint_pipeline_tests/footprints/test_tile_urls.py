import pytest

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.footprints.mercator import Tile
from footprint_pipeline.footprints.tile_urls import TileTemplate, without_secrets

TILE = Tile(3, 3, 5)


@pytest.mark.parametrize(
    ("template", "url"),
    [
        ("https://t.example/{z}/{x}/{y}@2x.png", "https://t.example/3/3/5@2x.png"),
        ("https://t.example/{z}/{x}/{-y}.png", "https://t.example/3/3/2.png"),  # TMS: rows 0 to 7 from the south
        ("https://t.example/a{quadkey}.jpeg?g=1", "https://t.example/a213.jpeg?g=1"),  # Microsoft's own example
        ("https://{s}.t.example/{z}/{x}/{y}", "https://c.t.example/3/3/5"),
        ("https://t{0-3}.example/{z}/{x}/{y}", "https://t0.example/3/3/5"),
        (
            "https://t.example/wmts/sat/default/g/{TileMatrix}/{TileRow}/{TileCol}.png",
            "https://t.example/wmts/sat/default/g/3/5/3.png",
        ),
        (
            "https://t.example/?REQUEST=GetTile&TileMatrix=EPSG:3857:{z}&TileRow={y}&TileCol={x}",
            "https://t.example/?REQUEST=GetTile&TileMatrix=EPSG:3857:3&TileRow=5&TileCol=3",
        ),
    ],
)
def test_every_form_finds_its_tile(template: str, url: str) -> None:
    assert TileTemplate(template).url(TILE) == url


def test_neighbours_are_spread_over_the_subdomains_and_each_tile_keeps_its_own() -> None:
    template = TileTemplate("https://{s}.example/{z}/{x}/{y}", subdomains=("one", "two"))
    row = [template.url(Tile(9, x, 0)).split(".")[0] for x in range(4)]
    assert row == ["https://one", "https://two"] * 2
    assert template.url(TILE) == template.url(TILE)
    assert template.host == "example"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("https://t.example/{z}/{x}.png", "not an http"),
        ("https://t.example/{TileMatrix}/{TileRow}.png", "not an http"),
        ("t.example/{z}/{x}/{y}", "not an http"),
        ("https://t.example/{Style}/{z}/{x}/{y}", r"\{style\}, which stands for nothing"),
        ("https://{c-a}.t.example/{z}/{x}/{y}.png", r"\{c-a\}, which stands for nothing"),
        ("https://{3-a}.t.example/{z}/{x}/{y}.png", r"\{3-a\}, which stands for nothing"),
        ("https://t.example/{z}/{x}/{y}{r}.png", r"\{r\}, which stands for nothing"),
    ],
)
def test_what_cannot_be_filled_in_is_refused(template: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        TileTemplate(template)


def test_what_tells_layers_apart_holds_no_secret() -> None:
    one, other = (
        f"https://me:pw@t.example/{{z}}/{{x}}/{{y}}?layer={layer}&access_token=s3cret&Key=s3cret&sig=s3cret"
        for layer in ("city", "land")
    )
    assert without_secrets(one) == "https://t.example/{z}/{x}/{y}?layer=city&access_token&Key&sig"
    assert without_secrets(other) == without_secrets(one).replace("city", "land")
    assert without_secrets("https://t/{z}/{x}/{y}.png") == "https://t/{z}/{x}/{y}.png"
    assert "s3cret" not in repr(TileTemplate(one))
