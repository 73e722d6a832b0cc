"""The page at ``/``: what it asks the server for, and what it does in a browser."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitinfer import modelfile
from bitinfer.session import Session
from helpers import binary_model, colour_model, encode, mean_image_model, noise, solid

Serving = Callable[..., Any]
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def client(serving: Serving) -> Any:
    sessions = {"colours": Session(colour_model()), "binary": Session(binary_model())}
    return serving({**sessions, "blind": Session(colour_model(preprocessing=None))})


def pixels(picture: dict[str, Any]) -> np.ndarray:
    raw = np.frombuffer(base64.b64decode(picture["pixels"]), np.uint8)
    return raw.reshape(picture["height"], picture["width"], picture["channels"])


# --- what it asks for ----------------------------------------------------------------------------


def test_its_files_load_nothing_from_elsewhere(client: Any) -> None:
    for path in ("/", "/page/page.js", "/page/page.css"):
        status, text, headers = client.get(path)
        assert status == 200
        assert b"http:" not in text
        assert b"https:" not in text
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_without_the_page_there_is_none(serving: Serving, colours: Session) -> None:
    client = serving({"m": colours}, page=False)
    assert client.get("/")[0] == 404
    assert client.post("/page/models/m/explain", encode(noise()))[0] == 404
    assert client.get("/v2")[0] == 200


def test_a_picture_is_explained(client: Any) -> None:
    picture = noise(8, 8, 1)
    status, answer, _ = client.post("/page/models/binary/explain", encode(picture))
    assert status == 200, answer
    assert np.array_equal(pixels(answer["input"])[..., 0], np.asarray(picture))
    session = Session(binary_model())
    wanted = session.classify(encode(picture))
    assert [p["index"] for p in answer["predictions"]] == [p.index for p in wanted]
    steps = session.profile(np.asarray(picture)[..., None], 1)
    assert [layer["name"] for layer in answer["layers"]] == [step.name for step in steps]
    assert sum(layer["share"] for layer in answer["layers"]) == pytest.approx(1)
    assert all(layer["us"] >= 0 for layer in answer["layers"])


def test_the_maps_and_weights_of_every_layer_are_what_the_network_has(client: Any) -> None:
    picture = noise(8, 8, 1)
    x = np.asarray(picture)[..., None]
    model = binary_model()
    plan = Session(model).measure_steps(x, 1).executor.plan
    signs = 0
    for index, step in enumerate(plan.steps):
        status, answer, _ = client.post(f"/page/models/binary/layers/{index}", encode(picture))
        assert status == 200, answer
        assert answer["layer"] == step.name
        assert answer["kind"] in ("signs", "numbers")
        for one in answer["maps"]:
            if answer["kind"] == "signs":
                assert set(pixels(one).ravel().tolist()) <= {0, 255}
        if answer["kind"] == "signs":
            signs += 1
        if step.name == "body":
            weight = model.tensors["body.weight"]
            assert answer["weights_kind"] == "signs"
            first = pixels(answer["weights"][0])[..., 0]
            from bitinfer import bits

            unpacked = bits.unpack(weight, 20)[0] if weight.dtype == np.uint64 else weight[0]
            gap = np.full((3, 1), 128)
            for channel in range(4):
                shown = first[:, 4 * channel : 4 * channel + 4]
                assert np.array_equal(shown[:, :3], np.where(unpacked[:, :, channel] > 0, 255, 0))
                assert channel == 3 or np.array_equal(shown[:, 3:], gap)
    assert signs >= 2
    status, answer, _ = client.post(f"/page/models/binary/layers/{len(plan.steps)}", b"")
    assert status == 400  # the picture is read first
    body = encode(picture)
    assert client.post(f"/page/models/binary/layers/{len(plan.steps)}", body)[0] == 404
    assert client.post("/page/models/binary/layers/-1", body)[0] == 404
    assert client.post("/page/models/binary/layers/x", body)[0] == 404
    assert client.post("/page/models/nobody/layers/0", body)[0] == 404


def test_the_last_map_is_the_output(client: Any) -> None:
    body = encode(solid("red"))
    _, answer, _ = client.post("/page/models/colours/explain", body)
    last = len(answer["layers"]) - 1
    _, answer, _ = client.post(f"/page/models/colours/layers/{last}", body)
    values = Session(colour_model()).run(np.asarray(solid("red")))
    assert answer["low"] == pytest.approx(float(values.min()))
    assert answer["high"] == pytest.approx(float(values.max()))
    assert pixels(answer["maps"][0]).ravel().tolist() == [255, 0, 0]


def test_the_maps_of_a_network_with_a_mean_image_are_of_the_picture_less_that(
    serving: Serving,
) -> None:
    session = Session(mean_image_model())
    client, picture = serving({"m": session}), solid("red")
    _, values = session.observe(np.asarray(picture)[None])
    for index, name in enumerate(values):
        status, answer, _ = client.post(f"/page/models/m/layers/{index}", encode(picture))
        assert status == 200, answer
        value = values[name][0]
        assert (answer["layer"], answer["channels"]) == (name, 3)
        assert (answer["low"], answer["high"]) == (float(value.min()), float(value.max()))
    assert answer["low"] == pytest.approx(float(session.run(np.asarray(picture)).min()))


def test_what_is_no_picture_is_refused(client: Any) -> None:
    assert client.post("/page/models/colours/explain", b"hello")[0] == 400
    assert client.post("/page/models/blind/explain", encode(noise()))[0] == 400
    assert client.post("/page/models/blind/layers/0", encode(noise()))[0] == 400


# --- in a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window: Debian's, or the one that playwright has downloaded."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    with sync_api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(
                executable_path=found, args=["--no-sandbox", "--disable-gpu"]
            )
        except sync_api.Error as error:
            pytest.skip(f"no Chromium that can be started: {str(error).splitlines()[0]}")
        yield started
        started.close()


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Any, client: Any) -> Iterator[Any]:
    """The page; whatever it logs as an error, or asks of another server, fails the test."""
    tab = browser.new_page(color_scheme=request.param)
    strange: list[str] = []
    tab.on("pageerror", lambda error: strange.append(str(error)))
    own = f"http://127.0.0.1:{client.port}/"

    def check(asked: Any) -> None:
        if not asked.url.startswith((own, "data:", "blob:")):
            strange.append(asked.url)

    tab.on("request", check)
    tab.goto(own)
    tab.locator("#about:not(:empty)").wait_for()
    yield tab
    tab.close()
    assert strange == []


def status(page: Any, text: str) -> None:
    page.locator("#status", has_text=text).wait_for()


def test_a_file_is_chosen_and_a_layer_looked_at(page: Any, tmp_path: Path) -> None:
    path = tmp_path / "green.png"
    path.write_bytes(encode(solid("green", (40, 30))))
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a picture").press("Enter")
    chooser.value.set_files(path)
    status(page, "green")
    items = page.locator("#predictions li")
    assert items.count() == 3
    assert items.first.inner_text().startswith("green")
    width = items.first.locator(".bar > span").evaluate("e => e.style.width")
    assert float(width.removesuffix("%")) > 50
    assert "inference" in page.locator("#stages").inner_text()
    assert page.locator("#input").evaluate("c => [c.width, c.height]") == [8, 8]
    middle = "c => [...c.getContext('2d').getImageData(4, 4, 1, 1).data]"
    assert page.locator("#input").evaluate(middle) == [0, 255, 0, 255]
    page.locator("#layers button").last.press("Enter")
    page.wait_for_selector("#maps canvas")
    assert page.evaluate("document.activeElement.id") == "maps-title"
    assert page.locator("#weights canvas").count() > 0


def test_a_picture_is_dropped(page: Any) -> None:
    data = base64.b64encode(encode(solid("blue"))).decode()
    page.evaluate(
        """data => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const held = new DataTransfer();
            held.items.add(new File([bytes], "blue.png", {type: "image/png"}));
            for (const name of ["dragover", "drop"]) {
                const options = {dataTransfer: held, bubbles: true, cancelable: true};
                document.getElementById("drop").dispatchEvent(new DragEvent(name, options));
            }
        }""",
        data,
    )
    status(page, "blue")


def test_what_is_no_picture_is_said_and_forgotten_with_the_next(page: Any) -> None:
    page.locator("#file").set_input_files(
        {"name": "a.png", "mimeType": "image/png", "buffer": b"hello"}
    )
    page.wait_for_selector("#error:not([hidden])")
    assert "not a picture" in page.locator("#error").inner_text()
    assert page.locator("#predictions li").count() == 0
    picture = {"name": "a.png", "mimeType": "image/png", "buffer": encode(solid("red"))}
    page.locator("#file").set_input_files(picture)
    status(page, "red")
    assert page.locator("#error").is_hidden()


def test_something_is_drawn(page: Any) -> None:
    page.get_by_label("Model").select_option("colours")
    box = page.locator("#draw").bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 150, box["y"] + 150, steps=5)
    page.mouse.up()
    page.wait_for_selector("#predictions li")
    inked = """c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data
        .filter((v, i) => i % 4 === 0 && v > 100).length"""
    assert page.locator("#input").evaluate(inked) > 0
    page.get_by_role("button", name="Clear the drawing").click()
    assert page.locator("#draw").evaluate(inked) == 0


def test_another_model_is_asked_and_one_without_pictures_says_so(page: Any) -> None:
    picture = {"name": "a.png", "mimeType": "image/png", "buffer": encode(solid("red"))}
    page.locator("#file").set_input_files(picture)
    status(page, "red")
    page.get_by_label("Model").select_option("blind")
    page.wait_for_selector("#error:not([hidden])")
    assert "does not take pictures" in page.locator("#error").inner_text()
    page.get_by_label("Model").select_option("binary")
    status(page, "percent")
    assert page.locator("#predictions li").count() == 5


def test_a_label_is_text_and_nothing_else(browser: Any, serving: Serving) -> None:
    labels = ("<img src=x onerror=alert(1)>", "<b>b</b>", "c")
    client = serving({"m": Session(colour_model(labels=labels), "reference")})
    tab = browser.new_page()
    tab.goto(f"http://127.0.0.1:{client.port}/")
    tab.locator("#about:not(:empty)").wait_for()
    picture = {"name": "a.png", "mimeType": "image/png", "buffer": encode(solid("red"))}
    tab.locator("#file").set_input_files(picture)
    tab.wait_for_selector("#predictions li")
    assert tab.locator("#predictions li .label").first.inner_text() == labels[0]
    assert tab.locator("#predictions img, #predictions b").count() == 0
    tab.close()


def test_it_can_be_used_without_sight_and_pointer(page: Any) -> None:
    picture = {"name": "a.png", "mimeType": "image/png", "buffer": encode(solid("red"))}
    page.locator("#file").set_input_files(picture)
    status(page, "red")
    page.locator("#layers button").first.click()
    page.wait_for_selector("#maps canvas")
    unnamed = page.evaluate(
        """[...document.querySelectorAll("canvas, img, button, select, input:not([hidden])")]
            .filter((e) => !(e.getAttribute("aria-label") || e.getAttribute("alt")
                || e.textContent.trim() || (e.labels && e.labels.length)))
            .map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    assert page.locator("[aria-live]").count() == 1
    reached = set()
    page.locator("#model").focus()
    for _ in range(30):
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        page.keyboard.press("Tab")
    assert {"model", "choose", "clear", "BUTTON"} <= reached


@pytest.fixture(scope="module")
def lenet5_module(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """LeNet-5 as WebAssembly, by the command of the example for node."""
    export = pytest.importorskip("bitinfer.export_c", reason="no extension")
    for tool in ("clang", "wasm-ld"):
        if shutil.which(tool) is None and shutil.which(f"{tool}-14") is None:
            pytest.skip(f"there is no {tool}")
    folder = tmp_path_factory.mktemp("wasm")
    exported = export.export_c(modelfile.load(EXAMPLES / "lenet5.bin"), "lenet5", ["portable"])
    (folder / "bitinfer_lenet5.c").write_text(exported.source)
    (folder / "bitinfer_lenet5.h").write_text(exported.header)
    text = (EXAMPLES / "embed" / "classify.mjs").read_text()
    command = re.search(r"(clang --target=wasm32.*)", text)
    assert command is not None
    done = subprocess.run(command[1].split(), cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("there is no C library for WebAssembly (Debian: wasi-libc)")
    return (folder / "lenet5.wasm").read_bytes()


def in_browser(browser: Any, serving: Serving, module: bytes) -> tuple[str, list[str], Any]:
    """Show a digit to LeNet-5 and its module; return what the page says, and its console."""
    session = Session(modelfile.load(EXAMPLES / "lenet5.bin"), "reference")
    client = serving({"lenet5": session}, modules={"lenet5": module})
    tab, said = browser.new_page(), []
    tab.on("console", lambda message: said.append(message.text))
    tab.goto(f"http://127.0.0.1:{client.port}/")
    tab.locator("#about:not(:empty)").wait_for()
    tab.locator("#file").set_input_files(EXAMPLES / "digit_7.png")
    tab.locator("#here:not([hidden])").wait_for()
    text = tab.locator("#here").inner_text()
    tab.close()
    return text, said, session.classify(EXAMPLES / "digit_7.png", 1)[0]


def test_a_module_says_in_the_browser_what_the_server_does(
    browser: Any, serving: Serving, lenet5_module: bytes
) -> None:
    text, said, best = in_browser(browser, serving, lenet5_module)
    assert said == []
    assert "the same class" in text
    here, there = (float(number) for number in re.findall(r"(?:score|server:) ([\d.]+)", text))
    assert here == pytest.approx(there, rel=1e-5)
    assert there == pytest.approx(best.score, rel=1e-5)


def test_a_module_that_is_none_is_said_and_the_answer_stays(browser: Any, serving: Serving) -> None:
    text, _, best = in_browser(browser, serving, b"\0asm\1\0\0\0")  # a module of nothing
    assert text == "Not in this browser: The module is no export of bitinfer."
    assert best.label == "7"


def test_only_where_there_is_a_module_may_the_browser_compile_one(
    serving: Serving, colours: Session
) -> None:
    module = b"\0asm\1\0\0\0"
    client = serving({"m": colours, "n": colours}, modules={"m": module})
    status, body, headers = client.get("/page/models/m/module.wasm")
    assert (status, body, headers["content-type"]) == (200, module, "application/wasm")
    assert client.get("/page/models/n/module.wasm")[0] == 404
    assert "script-src 'self' 'wasm-unsafe-eval';" in headers["content-security-policy"]
    for name, there in (("m", True), ("n", False)):
        _, answer, _ = client.post(f"/page/models/{name}/explain", encode(solid("red")))
        assert answer["has_module"] == there
    client = serving({"m": colours})
    assert "wasm" not in client.get("/")[2]["content-security-policy"]


def contrast(page: Any, selector: str) -> float:
    """Return the contrast of a text and what is behind it (WCAG 2.2, relative luminance)."""
    colours = page.evaluate(
        """selector => {
            const e = document.querySelector(selector);
            let behind = e;
            while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)")
                behind = behind.parentElement;
            return [getComputedStyle(e).color, getComputedStyle(behind).backgroundColor]
                .map((c) => c.match(/\\d+/g).slice(0, 3).map(Number));
        }""",
        selector,
    )
    luminance = []
    for colour in colours:
        linear = [
            v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
            for v in (c / 255 for c in colour)
        ]
        luminance.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    dark, light = sorted(luminance)
    return (light + 0.05) / (dark + 0.05)


def test_texts_can_be_read_in_light_and_dark(page: Any) -> None:
    page.evaluate("document.getElementById('error').hidden = false")
    for selector in ("h1", "header p", "#status", "#error", "#choose", "#model", "#drop span"):
        assert contrast(page, selector) >= 4.5, selector
