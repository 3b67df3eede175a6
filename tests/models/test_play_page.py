"""The playground as a person meets it: the real command, a real Chromium without window, no network."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from gmml_models.cli.play import Play

_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_MISSING = [name for name in ("gradio", "playwright", "skimage") if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(_MISSING), reason=f'needs {", ".join(_MISSING)}: pip install ".[browser]"'),
    pytest.mark.skipif(_CHROMIUM is None, reason="needs a Chromium: the package chromium of Debian, for example"),
]

# the command, in a Python that tells when something is asked of another machine, and refuses it
_GUARDED = """
import sys

def guard(event, words):
    if event == "socket.connect" and isinstance(words[1], tuple):
        host = words[1][0]
    elif event == "socket.getaddrinfo":
        host = words[0]
    else:
        return
    if host not in (None, "", "127.0.0.1", "::1", "localhost", "0.0.0.0"):
        print("LEFT THIS MACHINE FOR", host, file=sys.stderr, flush=True)
        raise OSError("no network in this test")

sys.addaudithook(guard)
"""
_COMMAND = f"{_GUARDED}\nfrom gmml_models.cli import main\nmain(sys.argv[1:])"
_PROXY = "http://127.0.0.1:9"  # nobody is there: what goes through it fails


class Served(NamedTuple):
    address: str
    said: Path  # what the command printed


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def serving(program: list[str], folder: Path, **more: str) -> Iterator[Served]:
    """Run a program until the test is over, from the moment when it has printed its address."""
    said = folder / "said.txt"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HTTP_PROXY": _PROXY, **more}
    environment = {**environment, "http_proxy": _PROXY, "GRADIO_TEMP_DIR": str(folder / "gradio"), "OMP_NUM_THREADS": "1"}
    with said.open("wb") as out, subprocess.Popen(program, stdout=out, stderr=out, cwd=folder, env=environment) as process:
        try:
            end = time.monotonic() + 120
            while not (found := re.search(r"gmml play: (http://\S+)/ ", said.read_text())):
                assert process.poll() is None, said.read_text()
                assert time.monotonic() < end, said.read_text()
                time.sleep(0.1)
            yield Served(found[1], said)
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    words = ["play", "--no-browser", "--port", str(free_port())]
    yield from serving([sys.executable, "-c", _COMMAND, *words], tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"] if os.getuid() == 0 else [])
        yield browser
        browser.close()


class Person:
    """One who looks at the page and uses it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.outside: list[str] = []  # what the page asked of other machines
        self.wrongs: list[str] = []
        page.route("**/*", self._route)
        page.on("pageerror", lambda error: self.wrongs.append(str(error)))

    def _route(self, route: Any) -> None:
        if re.match(r"(http|ws)://127\.0\.0\.1[:/]|data:|blob:", route.request.url):
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()

    def opens(self, address: str) -> None:
        self.page.goto(address)
        self.page.wait_for_selector("figure img")

    def sees(self) -> dict[str, str]:
        """The pictures by name."""
        found: dict[str, str] = self.page.eval_on_selector_all(
            "figure[data-name] img", "all => Object.fromEntries(all.map(one => [one.parentNode.dataset.name, one.src]))"
        )
        return found

    def reads(self) -> str:
        text: str = self.page.locator(".gmml-code .cm-content").inner_text()
        return text

    def does(self, act: Callable[[], object], name: str = "corrupted") -> dict[str, str]:
        """Do something, and wait until a picture is another one."""
        before = self.sees().get(name)
        act()
        self.page.wait_for_function(
            "([name, before]) => { const one = document.querySelector(`figure[data-name='${name}'] img`);"
            " return one && one.src != before }",
            arg=[name, before],
        )
        return self.sees()

    def types(self, label: str, value: float) -> None:
        field = self.page.get_by_label(label)
        field.fill(str(value))
        field.press("Enter")

    def chooses(self, preset: str) -> None:
        self.page.get_by_label("Preset").click()
        self.page.get_by_role("option", name=preset, exact=True).click()


@pytest.fixture
def person(chromium: Any, served: Served) -> Iterator[Person]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    visitor = Person(context.new_page())
    yield visitor
    context.close()
    assert visitor.outside == []
    assert visitor.wrongs == []
    assert "LEFT" not in served.said.read_text()
    assert "Traceback" not in served.said.read_text()


def test_a_person_plays(person: Person, served: Served, tmp_path: Path) -> None:
    person.opens(served.address)
    astronaut = person.sees()
    assert {"clean", "corrupted", "mask", "patch mask", "who did what", "noise", "alien", "grey", "blur"} <= set(astronaut)

    cat = person.does(lambda: person.page.get_by_label("Thumbnail 2 of").click(), "clean")
    assert all(cat[name] != astronaut[name] for name in ("clean", "corrupted", "mask"))  # on the mask the picture shines through

    person.does(lambda: person.chooses("mae"))
    assert "Cells(size=16, ratio=0.75)" in person.reads()
    assert float(person.page.get_by_label("number input for Ratio from").input_value()) == 0.75
    gmml = person.does(lambda: person.chooses("gmml"))
    assert gmml == cat
    assert "InBoxes(Boxes(ratio=(0.0, 0.35)), Noise())" in person.reads()

    more = person.does(lambda: person.page.get_by_label("number input for to").first.fill("0.8"))
    assert "InBoxes(Boxes(ratio=(0.0, 0.8)), Noise())" in person.reads()
    assert "keys(144, 0" in person.reads()

    other = person.does(lambda: person.page.get_by_role("button", name="New key").click())
    assert all(other[name] != more[name] for name in ("corrupted", "mask", "patch mask", "who did what"))
    assert other["clean"] == more["clean"]
    assert person.does(lambda: person.types("Key", 144)) == more

    person.page.screenshot(path=tmp_path / "wide.png")
    with Image.open(tmp_path / "wide.png") as shot:
        assert shot.size == (1280, 900)
        assert len(shot.convert("RGB").getcolors(1 << 24) or ()) > 5000  # photographs are on it


def test_a_picture_of_ones_own_is_played_with_until_another_is_chosen(person: Person, served: Served, tmp_path: Path) -> None:
    pixels = np.full((90, 120, 3), (200, 30, 30), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "red.png")
    (tmp_path / "text.png").write_text("no picture")
    person.opens(served.address)
    before = person.sees()
    own = person.does(lambda: person.page.locator("input[type=file]").set_input_files(tmp_path / "red.png"), "clean")
    assert "your picture" in person.page.locator("figure[data-name=clean] figcaption").inner_text()
    chosen = person.does(lambda: person.page.get_by_label("Thumbnail 1 of").click(), "clean")
    assert own["clean"] not in chosen.values()
    assert chosen == before
    person.page.locator("input[type=file]").set_input_files(tmp_path / "text.png")
    assert "cannot be read: not an image" in person.page.get_by_role("alert").inner_text()


def test_what_cannot_be_is_said_in_the_librarys_words(person: Person, served: Served) -> None:
    person.opens(served.address)
    before = person.sees()
    person.types("number input for Ratio from", 0.6)
    alert = person.page.get_by_role("alert")
    alert.wait_for()
    assert "Boxes: ratio=(0.6, 0.35) has low above high. Give (low, high) with low <= high." in alert.inner_text()
    assert person.sees() == before
    person.types("number input for Ratio from", 0.0)
    alert.wait_for(state="hidden")
    for name in ("noise", "alien", "grey"):
        person.does(person.page.get_by_label(name, exact=True).uncheck)
    person.page.get_by_label("blur", exact=True).uncheck()
    alert.wait_for()
    assert "Chain: the list of parts is empty. Give at least one corruption." in alert.inner_text()


def test_on_a_phone_nothing_is_wider_than_the_screen(person: Person, served: Served, tmp_path: Path) -> None:
    person.page.set_viewport_size({"width": 400, "height": 860})
    person.opens(served.address)
    assert person.page.evaluate("document.documentElement.scrollWidth") == 400
    first = person.page.locator("figure img").first.bounding_box()
    assert first["y"] < 300  # pictures before knobs
    person.page.screenshot(path=tmp_path / "phone.png", full_page=True)


def test_a_space_serves_the_page(tmp_path: Path) -> None:
    Play(space=tmp_path / "space").run()
    for run in serving([sys.executable, "app.py"], tmp_path / "space", GRADIO_SERVER_PORT=str(free_port())):
        port = run.address.rpartition(":")[2]
        with urlopen(f"http://127.0.0.1:{port}/", timeout=20) as page:
            assert b"gmml playground" in page.read()
