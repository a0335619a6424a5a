"""The map, as people use it: with a mouse, a finger, a keyboard; and what it says when there is nothing to show."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import flask
import pyarrow.parquet
import pyogrio
import pytest
import shapely
from flask import Flask
from playwright.sync_api import Browser, Page, Route, expect
from shapely.geometry import box

from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.mercator import Bounds
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.browser.conftest import FAINT, SMALL, X, Y, visit
from footprint_pipeline_tests.footprints.red_city import DEGREE_M, roof, write_city, write_model
from footprint_pipeline_tests.serving.conftest import AREA, ROOF, FakeRegistry, started
from serving.app import create_app
from serving.map.page import DOWNLOADS
from serving.model_store import ModelStore

FOUND = "2 buildings"
GROUND = f"{Y + 0.0009}/{X + 0.0009}"
AIM = "getComputedStyle(document.querySelector('#map'), '::after').content"
MASK_PIXELS = """() => [...document.querySelectorAll('.leaflet-mask-pane canvas')].map(canvas => {
  const rgba = canvas.getContext('2d', {willReadFrequently: true}).getImageData(0, 0, 256, 256).data;
  return rgba.filter((value, at) => at % 4 === 3 && value).length;
}).reduce((sum, count) => sum + count, 0)"""


@pytest.fixture
def page(browser: Browser, service: str) -> Iterator[Page]:
    with visit(browser, service) as page:
        opened(page)
        yield page


def opened(page: Page) -> None:
    """Wait until the page knows what there is, and says what to do."""
    expect(page.locator("#model")).to_have_text("red-roofs, version 3, sees 0.5 m a pixel.")
    until(page, "document.querySelectorAll('.leaflet-tile-pane canvas.leaflet-tile-loaded').length > 1")


def until(page: Page, so: str | Callable[[], bool]) -> None:
    """Wait until it is so. Playwright's own way evaluates in the page, which its policy forbids."""
    end = time.monotonic() + 15
    while not (page.evaluate(so) if isinstance(so, str) else so()):
        assert time.monotonic() < end, so
        page.wait_for_timeout(50)


def click_map(page: Page) -> None:
    page.locator("#map").click()


def found(page: Page, text: str = FOUND) -> None:
    expect(page.locator("#status")).to_contain_text(text)
    expect(page.locator("#panel")).not_to_have_attribute("aria-busy", "true")


@contextmanager
def answered(page: Page, tolerance: float) -> Iterator[None]:
    """Wait until the page has taken in the answer to what is done within."""
    with page.expect_response(lambda it: (it.request.post_data_json or {}).get("tolerance") == tolerance):
        yield
    expect(page.locator("#panel")).not_to_have_attribute("aria-busy", "true")


def slide(page: Page, label: str, value: float) -> None:
    page.get_by_label(label).fill(str(value))


def place(page: Page, longitude: float, latitude: float) -> tuple[float, float]:
    """Where a place is on the screen while the view is as it was opened: north up, the city in the middle."""
    told = page.evaluate("location.hash").removeprefix("#at=").partition("&")[0]
    zoom, middle_y, middle_x = (float(part) for part in told.split("/"))
    frame = page.locator("#map").bounding_box()
    pixels_a_degree = 256 * 2**zoom / 360
    return (
        frame["x"] + frame["width"] / 2 + (longitude - middle_x) * pixels_a_degree,
        frame["y"] + frame["height"] / 2 - (latitude - middle_y) * pixels_a_degree / 0.921,  # cos 22.9°
    )


def test_it_opens_where_the_imagery_is_and_asks_nobody_else(page: Page) -> None:
    expect(page.locator("#note")).to_be_hidden()
    expect(page.locator(".leaflet-control-attribution")).to_contain_text("© the <b>painter</b>")
    colour = page.evaluate(
        "() => [...[...document.querySelectorAll('.leaflet-tile-pane canvas')].map("
        "it => it.getContext('2d').getImageData(128, 128, 1, 1).data).find(it => it[3])]"
    )
    assert max(colour) - min(colour[:3]) > 0
    assert page.url.split("#at=")[1].startswith(("18/-22.8995", "19/-22.8995"))


def test_a_click_finds_buildings_and_a_building_tells_of_itself(page: Page) -> None:
    click_map(page)
    found(page)
    assert page.locator("#legend .told").all_inner_texts() == ["2", "0", "0", "0"]
    until(page, f"({MASK_PIXELS})() > 1000")
    page.get_by_text("List of buildings").click()
    expect(page.locator("#list li button")).to_have_count(2)
    page.locator("#list li button").first.click()
    expect(page.locator(".leaflet-popup")).to_contain_text("Model version 3")


def test_sliders_act_at_once(page: Page) -> None:
    click_map(page)
    found(page)
    until(page, f"({MASK_PIXELS})() > 1000")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    slide(page, "Minimum area", 100)
    found(page, "1 building,")
    expect(page.locator("#status")).to_contain_text("1 smaller one is left out")
    slide(page, "Opacity of the mask", 0.8)
    assert page.locator(".leaflet-mask-pane .leaflet-layer").evaluate("it => it.style.opacity") == "0.8"
    assert asked == [], "what the page knows it does not ask"

    before = page.evaluate(MASK_PIXELS)
    slide(page, "Tolerance", 0.8)
    assert page.evaluate(MASK_PIXELS) > before + 100, "the mask does not wait for the outlines"
    found(page, "2 buildings")
    slide(page, "Minimum area", 0)
    found(page, "3 buildings")
    assert [url.rpartition("/")[2] for url in asked] == ["footprints"]


def test_each_place_is_asked_about_at_the_models_own_tolerance_there(
    browser: Browser, city: GeoTiffImagery, start: Callable[..., str], tmp_path: Path
) -> None:
    box = (AREA.left, AREA.bottom, AREA.right, AREA.top)
    model = write_model(tmp_path / "model", own_tolerances={"Rio": 0.8}, places={"Rio": (box,)})
    store = started(FakeRegistry(model), tmp_path / "cache")
    with visit(browser, start(create_app(Settings(), store=store, imagery=city))) as page:
        opened(page)
        expect(page.get_by_label("Tolerance")).to_have_value("0.5")
        with page.expect_request("**/v1/footprints") as asked:
            click_map(page)
        assert "tolerance" not in asked.value.post_data_json
        found(page, "3 buildings")
        expect(page.get_by_label("Tolerance")).to_have_value("0.8")
        page.reload()  # what nobody has moved is still the model's
        found(page, "3 buildings")
        expect(page.get_by_label("Tolerance")).to_have_value("0.8")
        assert "&area=" in page.url
        assert not any(f"{name}=" in page.url for name in ("tolerance", "min_area", "opacity"))
        with answered(page, 0.5):
            slide(page, "Tolerance", 0.5)
        found(page, "2 buildings")
        with answered(page, 0.5):
            page.get_by_role("button", name="Buildings in view").click()
        found(page, "2 buildings")
        assert "tolerance=0.5" in page.url


def test_an_answer_under_way_does_not_move_the_slider_back(page: Page) -> None:
    held: list[Route] = []
    page.route("**/v1/footprints", lambda route: held.append(route))
    click_map(page)
    until(page, lambda: len(held) == 1)
    answer = held[0].fetch()
    assert answer.json()["tolerance"] == 0.5
    slide(page, "Tolerance", 0.8)
    held[0].fulfill(response=answer)
    found(page)
    until(page, lambda: len(held) == 2)
    assert held[1].request.post_data_json["tolerance"] == 0.8
    held[1].continue_()
    found(page, "3 buildings")
    expect(page.get_by_label("Tolerance")).to_have_value("0.8")


def test_corners_are_squared_for_the_asking(page: Page) -> None:
    click_map(page)
    found(page)
    with page.expect_response("**/v1/footprints") as answer:
        page.get_by_label("Square corners").check()
    assert {feature["properties"]["outline"] for feature in answer.value.json()["features"]} == {"regularised"}
    found(page)
    with page.expect_response("**/v1/footprints") as answer:
        page.get_by_label("Square corners").uncheck()
    assert {feature["properties"]["outline"] for feature in answer.value.json()["features"]} == {"raw"}


def test_a_rectangle_is_drawn_with_shift_or_by_two_clicks(page: Page) -> None:
    corners = [place(page, SMALL.left - 1e-4, SMALL.top + 1e-4), place(page, SMALL.right + 1e-4, SMALL.bottom - 1e-4)]
    page.keyboard.down("Shift")
    page.mouse.move(*corners[0])
    page.mouse.down()
    page.mouse.move(*corners[1], steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    found(page, "1 building,")
    drawn = [float(part) for part in page.url.split("&area=")[1].split("&")[0].split(",")]
    assert drawn == pytest.approx(
        [SMALL.left - 1e-4, SMALL.bottom - 1e-4, SMALL.right + 1e-4, SMALL.top + 1e-4], abs=1e-5
    )

    draw = page.get_by_role("button", name="Draw a rectangle")
    draw.click()
    expect(draw).to_have_attribute("aria-pressed", "true")
    page.mouse.click(*place(page, ROOF.left - 1e-4, ROOF.top + 1e-4))
    page.mouse.click(*place(page, SMALL.right + 1e-4, SMALL.bottom - 1e-4))
    expect(draw).to_have_attribute("aria-pressed", "false")
    found(page)
    draw.click()
    page.keyboard.press("Escape")
    expect(draw).to_have_attribute("aria-pressed", "false")


def test_what_is_shown_is_downloaded(page: Page, tmp_path: Path) -> None:
    click_map(page)
    found(page)
    slide(page, "Minimum area", 100)
    for name, ending in DOWNLOADS.values():
        with page.expect_download() as waiting:
            page.get_by_role("button", name=name, exact=True).click()
        assert waiting.value.suggested_filename == f"footprints.{ending}"
        file = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(file)
        if ending == "parquet":
            outlines = shapely.from_wkb(pyarrow.parquet.read_table(file)["geometry"].to_numpy())
        else:
            outlines = shapely.from_wkb(pyogrio.raw.read(file)[2])
        (outline,) = outlines
        assert outline.hausdorff_distance(box(*ROOF)) * DEGREE_M < 0.75
    expect(page.locator("#problem")).to_be_hidden()


def test_the_link_shows_the_same_again(page: Page, browser: Browser) -> None:
    click_map(page)
    found(page)
    slide(page, "Tolerance", 0.8)
    found(page, "3 buildings")
    slide(page, "Minimum area", 100)
    slide(page, "Opacity of the mask", 0.6)
    page.get_by_label("Square corners").check()
    found(page, "2 buildings")
    link = page.get_by_role("link", name="Link to this view").evaluate("it => it.href")
    assert link == page.url
    with visit(browser, link) as again:
        found(again, page.locator("#status").inner_text())
        assert again.url == link
        for label, value in (("Tolerance", "0.8"), ("Minimum area", "100"), ("Opacity of the mask", "0.6")):
            expect(again.get_by_label(label)).to_have_value(value)
        expect(again.get_by_label("Square corners")).to_be_checked()


@pytest.mark.parametrize(
    ("fragment", "status", "problem"),
    [
        (f"#at=19/{GROUND}&area={X + 0.0005},{Y + 0.0005},{X + 0.0009},{Y + 0.0009}", "No building here", ""),
        ("#at=17/48.8/2.3&area=2.3,48.8,2.301,48.801", "There is no imagery here", "It covers latitude -22.9"),
        ("#at=10/-22.9/-43.2&area=-44,-23,-43,-22", "No answer", "Ask for a rectangle of 4.19 km² at most"),
    ],
)
def test_it_says_plainly_why_there_is_nothing(
    browser: Browser, service: str, fragment: str, status: str, problem: str
) -> None:
    with visit(browser, service + fragment) as page:
        found(page, status)
        expect(page.get_by_role("alert")).to_contain_text(problem) if problem else expect(
            page.locator("#problem")
        ).to_be_hidden()
        if "48.8" in fragment:
            expect(page.locator("#note")).to_have_text("There is no imagery in view.")


def test_a_link_that_is_followed_ends_the_question_before(
    browser: Browser, start: Callable[..., str], store: ModelStore, city: GeoTiffImagery
) -> None:
    app = create_app(Settings(), store=store, imagery=city)
    answering, asked = threading.Event(), []

    @app.before_request
    def wait() -> None:
        if flask.request.path == "/v1/footprints":
            asked.append(flask.request.json)
            answering.wait(10)

    with visit(browser, start(app)) as page:
        opened(page)
        click_map(page)
        expect(page.locator("#status")).to_contain_text("Looking")
        page.evaluate(f"() => {{ location.hash = '#at=18/{GROUND}' }}")
        expect(page.locator("#status")).to_contain_text("Click the map")
        answering.set()
        page.wait_for_timeout(300)
        assert "&area=" not in page.url
        assert page.locator("#panel").get_attribute("aria-busy") is None
        click_map(page)
        found(page)
        times = len(asked)
        slide(page, "Tolerance", 0.8)  # it is asked for soon
        page.evaluate(f"() => {{ location.hash = '#at=18/{GROUND}' }}")
        page.wait_for_timeout(600)
        assert all(question["bbox"] for question in asked)
        assert len(asked) == times
        expect(page.locator("#status")).to_contain_text("Click the map")
        expect(page.locator("#problem")).to_be_hidden()


def test_imagery_across_the_antimeridian_is_seen_and_asked_about_on_both_sides(
    browser: Browser, start: Callable[..., str], store: ModelStore, tmp_path: Path
) -> None:
    south, north = -0.001, 0.001
    roofs = [roof(180 + off, 0, 24, 15) for off in (-0.0006, 0.0006)]
    path = write_city(tmp_path / "fiji.tif", Bounds(179.9985, south, 180.0015, north), roofs)
    address = start(create_app(Settings(), store=store, imagery=GeoTiffImagery(path)))
    for longitude in (180.0006, -179.9994, 179.9994):
        with visit(browser, f"{address}#at=20/0/{longitude}") as page:
            opened(page)
            expect(page.locator("#note")).to_be_hidden()
            click_map(page)
            found(page, "1 building")
            click_map(page)  # on the building, which is drawn where it was asked about
            expect(page.locator(".leaflet-popup")).to_contain_text("Model version 3")
            (west, _, east, _) = map(float, page.url.split("area=")[1].split("&")[0].split(","))
            assert -180 <= west < east <= 180


def test_fragments_that_make_no_sense_do_no_harm(browser: Browser, service: str) -> None:
    with visit(browser, service + "#at=x/y&area=1,2&tolerance=9&opacity=<b>&imagery=gone&min_area=-1") as page:
        opened(page)
        click_map(page)
        found(page)


def refusing(app: Flask, path: str, status: int) -> Flask:
    """The app, but one path answers so twice, as one that has too much to do."""
    left = {"times": 2}

    @app.before_request
    def refuse():
        from flask import request

        if request.path.startswith(path) and left["times"]:
            left["times"] -= 1
            told = {"title": "Too many requests", "status": status, "detail": "All hands are busy."}
            return json.dumps(told), status, {"Content-Type": "application/problem+json", "Retry-After": "1"}
        return None

    return app


def test_a_busy_service_is_asked_again(
    browser: Browser, start: Callable[..., str], store: ModelStore, city: GeoTiffImagery
) -> None:
    app = create_app(Settings(), store=store, imagery=city)
    with visit(browser, start(refusing(app, "/v1/footprints", 503))) as page:
        opened(page)
        click_map(page)
        expect(page.get_by_role("alert")).to_contain_text("All hands are busy.")
        again = page.get_by_role("button", name="Try again")
        expect(again).to_have_text("Try again in 1 s")
        expect(again).to_be_disabled()
        expect(again).to_be_enabled()
        again.click()
        expect(again).to_be_disabled()
        again.click()
        found(page)
        expect(page.locator("#problem")).to_be_hidden()


def test_whoever_looks_around_without_a_model_stays_there_and_the_link_is_answered_when_there_is_one(
    browser: Browser, start: Callable[..., str], city: GeoTiffImagery, tmp_path: Path
) -> None:
    registry = FakeRegistry(write_model(tmp_path / "model"), champion=None)
    store = started(registry, tmp_path / "cache")
    link = f"#at=18/{Y}/{X}&area={','.join(map(str, AREA))}&tolerance=0.8"
    with visit(browser, start(create_app(Settings(), store=store, imagery=city)) + link) as page:
        scale = page.locator(".leaflet-control-scale-line")
        again = page.get_by_role("button", name="Try again")
        expect(page.get_by_role("alert")).to_contain_text("No model is loaded")
        before = scale.inner_text()
        page.get_by_role("button", name="Zoom out").click()
        expect(scale).not_to_have_text(before)
        after = scale.inner_text()
        with page.expect_response("**/v1/model"):
            again.click()
        page.wait_for_timeout(500)
        assert scale.inner_text() == after

        registry.champion = "3"
        store.refresh()
        again.click()
        found(page, "3 buildings")
        assert scale.inner_text() == after
        expect(page.get_by_label("Tolerance")).to_have_value("0.8")
        assert "#at=17/" in page.url


def test_imagery_that_is_refused_for_a_while_comes_later(
    browser: Browser, start: Callable[..., str], store: ModelStore, city: GeoTiffImagery
) -> None:
    app = create_app(Settings(), store=store, imagery=city)
    with visit(browser, start(refusing(app, "/v1/imagery/", 429))) as page:
        expect(page.locator("#note")).to_have_text("Imagery: Too many requests. It goes on in 1 s.")
        opened(page)
        expect(page.locator("#note")).to_be_hidden()


def test_a_key_is_asked_for_and_told_to_the_service_alone(browser: Browser, start: Callable[..., str]) -> None:
    with visit(browser, start(api_keys="open-sesame")) as page:
        key = page.get_by_label("Key of this service")
        expect(key).to_be_focused()
        expect(page.get_by_role("alert")).to_contain_text("A key is needed")
        key.fill("wrong")
        key.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("The key is not known.")
        key.fill("schlüssel")
        key.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("That is no key")
        urls: list[str] = []
        page.on("request", lambda request: urls.append(request.url))
        key.fill("open-sesame")
        page.get_by_role("button", name="Use it").click()
        expect(key).to_be_hidden()
        opened(page)
        click_map(page)
        found(page)
        until(page, f"({MASK_PIXELS})() > 1000")
        assert "open-sesame" not in "".join(urls) + page.url + page.evaluate("JSON.stringify(localStorage)")
        page.reload()
        found(page)


def test_it_fits_a_phone(browser: Browser, service: str) -> None:
    with visit(browser, service, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True) as page:
        opened(page)
        page.locator("#map").tap()
        found(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("(it => it.scrollWidth <= it.clientWidth)(document.getElementById('panel'))")
        frame = page.locator("#map").bounding_box()
        assert frame["width"] == 360
        assert frame["height"] > 300
        for control in page.locator("#panel :is(button, select, input, a):visible").all():
            control.scroll_into_view_if_needed()
            seen = control.bounding_box()
            assert seen["x"] >= 0
            assert seen["x"] + seen["width"] <= 360
        page.get_by_role("button", name="Draw a rectangle").tap()
        for corner in ((ROOF.left - 1e-4, ROOF.top + 1e-4), (ROOF.right + 1e-4, ROOF.bottom - 1e-4)):
            page.touchscreen.tap(*place(page, *corner))
        found(page, "1 building,")
        page.get_by_role("button", name="Draw a rectangle").tap()
        finger = page.context.new_cdp_session(page)
        for kind, place_wgs84 in (
            ("touchStart", (ROOF.left - 1e-4, ROOF.top + 1e-4)),
            ("touchMove", SMALL.centre),
            ("touchMove", (SMALL.right + 1e-4, SMALL.bottom - 1e-4)),
            ("touchEnd", None),
        ):
            points = [dict(zip("xy", place(page, *place_wgs84), strict=True))] if place_wgs84 else []
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        found(page, "2 buildings,")


def test_what_enter_asks_about_is_shown_to_those_who_use_keys(page: Page) -> None:
    click_map(page)
    found(page)
    assert page.evaluate("document.activeElement.id") == "map"
    assert page.evaluate(AIM) == "none"


def test_the_view_is_asked_about_where_it_has_imagery(page: Page) -> None:
    for _ in range(6):
        page.get_by_role("button", name="Zoom out").click()
        page.wait_for_timeout(300)
    with page.expect_request("**/v1/footprints") as asked:
        page.get_by_role("button", name="Find buildings in view").click()
    west, south, east, north = asked.value.post_data_json["bbox"]
    assert box(*ROOF).within(box(west, south, east, north))
    assert max(east - west, north - south) * DEGREE_M < 500
    found(page)


def test_the_keyboard_is_enough(page: Page) -> None:
    def tab_to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches({selector!r})"):
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
                return
        raise AssertionError(selector)

    tab_to("#map")
    before = page.url
    page.keyboard.press("ArrowLeft")
    until(page, f"location.href !== {before!r}")
    assert page.evaluate(AIM) == '""'
    page.keyboard.press("Enter")
    found(page)
    tab_to("#view")
    page.keyboard.press("Enter")
    found(page)
    tab_to("#tolerance")
    page.keyboard.press("End")
    expect(page.locator("#tolerance-told")).to_have_text("1")
    with answered(page, tolerance=0.01):
        page.keyboard.press("Home")
        expect(page.locator("#tolerance-told")).to_have_text("0.01")
    tab_to("#min-area")
    page.keyboard.press("End")
    found(page, "1 building,")
    tab_to("#downloads button")
    with page.expect_download():
        page.keyboard.press("Enter")
    tab_to("summary")
    page.keyboard.press("Enter")
    tab_to("#list li button")
    page.keyboard.press("Enter")
    expect(page.locator(".leaflet-popup")).to_be_visible()


def test_an_answer_takes_nobody_off_the_list(page: Page) -> None:
    click_map(page)
    found(page)
    page.get_by_text("List of buildings").click()
    buttons = page.locator("#list li button")
    expect(buttons).to_have_count(2)  # a browser tells that the list is open a moment later
    small = min(buttons.all(), key=lambda button: int(button.inner_text().split(",")[1].split()[0]))
    small = page.locator(f"[data-footprint='{small.get_attribute('data-footprint')}']")
    old = small.element_handle()
    with answered(page, tolerance=0.3):
        slide(page, "Tolerance", 0.3)
        small.focus()
    assert not old.evaluate("it => it.isConnected"), "the list is made anew"
    expect(small).to_be_focused()

    page.evaluate("document.getElementById('min-area').value = 300")
    page.evaluate("document.getElementById('min-area').dispatchEvent(new Event('input'))")
    expect(buttons).to_have_count(1)
    expect(page.locator("#list summary")).to_be_focused()

    page.route("**/v1/footprints", lambda route: route.abort())
    slide(page, "Tolerance", 0.6)
    expect(page.locator("#problem")).to_be_visible()
    expect(buttons).to_have_count(0)


def test_every_building_is_on_the_list_for_the_asking(page: Page) -> None:
    def many(route: Route) -> None:
        answer = route.fetch()
        told = answer.json()
        told["features"] = [{**told["features"][0], "id": f"roof-{number}"} for number in range(450)]
        route.fulfill(response=answer, json=told)

    page.route("**/v1/footprints", many)
    click_map(page)
    found(page, "450 buildings")
    page.get_by_text("List of buildings").click()
    rows, more = page.locator("#list li"), page.locator("#more")
    for listed, left in ((200, "And 250 more"), (400, "And 50 more")):
        expect(rows).to_have_count(listed)
        expect(more).to_have_text(left)
        more.press("Enter")
        expect(page.locator(f"[data-footprint=roof-{listed}]")).to_be_focused()
    expect(rows).to_have_count(450)
    expect(more).to_be_hidden()

    page.get_by_role("button", name="Find buildings in view").click()  # the list is short again
    expect(more).to_have_text("And 250 more")
    more.focus()
    page.unroute("**/v1/footprints")
    page.evaluate("document.getElementById('tolerance').value = 0.3")
    page.evaluate("document.getElementById('tolerance').dispatchEvent(new Event('input'))")
    expect(rows).to_have_count(2)
    expect(page.locator("#list summary")).to_be_focused()


def test_a_screen_reader_is_told_each_thing_once_and_with_its_unit(page: Page) -> None:
    assert page.locator("output, [aria-live]").count() == 0
    assert {it.get_attribute("id") for it in page.locator("[role=status]").all()} == {"status", "note"}
    for label, value, text in (
        ("Minimum area", 20, "20 m²"),
        ("Opacity of the mask", 0.4, "40 %"),
        ("Tolerance", 0.8, "0.8"),
    ):
        slide(page, label, value)
        expect(page.get_by_label(label)).to_have_attribute("aria-valuetext", text)


def test_a_place_is_gone_to_by_its_degrees(page: Page) -> None:
    page.get_by_text("Go to a place").click()
    field = page.get_by_label("Latitude, longitude")
    field.fill("no place")
    field.press("Enter")
    assert not field.evaluate("it => it.checkValidity()")
    field.fill(f"{FAINT.top}, {FAINT.left}")
    field.press("Enter")
    until(page, f"Math.abs(location.hash.split('/')[1] - {FAINT.top}) < 1e-5")
