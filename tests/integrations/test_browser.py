"""The progress page in a real Chromium, driven headless: what a person sees. Real clock, real processes."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from collections.abc import AsyncIterator
from itertools import groupby
from typing import Literal

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page, async_playwright, expect

from distribute_async.emulator import Emulator, fault
from distribute_async.integrations import _feeds
from examples import fastapi_app
from tests.integrations.pages import blocks
from tests.integrations.processes import COMMANDS, Example, example
from tests.integrations.sites import serve_fastapi

CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
SCHEMES: list[Literal["light", "dark"]] = ["light", "dark"]
SCRIPT = "<script>document.title = 'taken over'</script><b>bold</b>"

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="needs Chromium: see install-browser.sh"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Chromium with a new profile."""
    async with async_playwright() as playwright:
        assert CHROMIUM is not None, "CI installs Chromium with install-browser.sh"
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A tab of a browser that remembers nothing yet. In the end nobody has complained on its console."""
    async with await browser.new_context() as context:
        page = await context.new_page()
        page.set_default_timeout(20_000)
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
        assert [complaint for complaint in complaints if "Failed to load resource" not in complaint] == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def emulator() -> AsyncIterator[Emulator]:
    """The service; what it draws lives fast."""
    async with Emulator(seed=7, speed=4) as emulator:
        yield emulator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(emulator: Emulator) -> AsyncIterator[Example]:
    """The FastAPI example; who ends it starts it again."""
    async with example("fastapi", emulator) as app:
        yield app


class Scripted:
    """A task that stands where the test says, and what the service said of it."""

    def __init__(self, emulator: Emulator, text: str = "Worth the wait.") -> None:
        self.status = "CREATED"
        self.said: list[str] = []
        self._text = text
        self.id = emulator.add_task([(0, "CREATED")], faults=[self._answer] * 1_000)

    async def _answer(self, _answer: object, _write: object) -> web.Response:
        self.said.append(self.status)
        message = {"role": "assistant", "content": self._text}
        choices = [{"finish_reason": "stop", "index": 0, "message": message}] if self.status == "COMPLETED" else []
        return web.json_response({"status": self.status, "created": 1.0, "model": "m", "choices": choices})

    async def go(self, *statuses_: str, on: Page) -> None:
        """Go through these statuses, each as soon as the page shows the one before."""
        for status in statuses_:
            self.status = status
            await expect(on.locator(f"[data-status='{status}']").last).to_be_visible(timeout=20_000)

    @property
    def seen(self) -> list[str]:
        """What polls saw: each status once, until it changed."""
        return [status for status, _ in groupby(self.said)]


async def statuses(page: Page) -> list[str]:
    """What the page's timeline shows, in order."""
    shown: list[str] = await page.locator("[data-status]").evaluate_all("rows => rows.map(row => row.dataset.status)")
    return shown


@pytest.mark.parametrize("name", COMMANDS)
async def test_from_form_to_answer(name: str, page: Page, emulator: Emulator) -> None:
    """By keyboard alone a task is created; two tabs show each status in order, and the answer, alike."""
    async with example(name, emulator) as app:
        await page.goto(app.url)
        await page.get_by_label("Prompt").press_sequentially("Why do queues form?")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Tab")
        await expect(page.locator("button[type=submit]")).to_be_focused()
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/tasks/*")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Why do queues form?")
        other = await page.context.new_page()
        await other.goto(page.url)
        for tab in (page, other):
            await expect(tab.locator("#answer")).not_to_be_empty(timeout=20_000)
        shown = await statuses(page)
        assert shown == await statuses(other)
        assert (len(shown), shown[-1]) > (1, "COMPLETED")
        assert await other.locator("#answer").text_content() == await page.locator("#answer").text_content()


async def test_two_tabs_and_all_statuses(page: Page, app: Example, emulator: Emulator) -> None:
    """Each status that a poll saw is shown once and in order, in two tabs alike, also where one goes back and forth."""
    task = Scripted(emulator)
    other = await page.context.new_page()
    for tab in (page, other):
        await tab.goto(f"{app.url}/tasks/{task.id}")
    await task.go("CREATED", "QUEUED", "POSTPONED", on=page)
    task.status = "QUEUED"
    await expect(page.locator("[data-status=QUEUED]")).to_have_count(2)
    await task.go("PROCESSING", "COMPLETED", on=page)
    for tab in (page, other):
        await expect(tab.locator("#answer")).to_have_text("Worth the wait.")
        assert await statuses(tab) == task.seen
    assert task.seen == ["CREATED", "QUEUED", "POSTPONED", "QUEUED", "PROCESSING", "COMPLETED"]


async def test_several_side_by_side(page: Page, app: Example, emulator: Emulator) -> None:
    """The page with the form shows the tasks that this browser saw, more than it has connections, each to its end."""
    for n in range(6):
        task_id = emulator.add_task([(0, "QUEUED"), (0.3 * n, "COMPLETED")], text=str(n))
        await page.goto(f"{app.url}/tasks/{task_id}")
    await page.goto(app.url)
    cards = page.locator(".card")
    await expect(cards).to_have_count(6)
    for n in range(6):
        await expect(cards.nth(n).locator(".answer")).to_have_text(str(5 - n), timeout=20_000)
        await expect(cards.nth(n).locator("[data-status=COMPLETED]")).to_be_visible()


@pytest.mark.parametrize("meanwhile", ["nobody", "a proxy"])
async def test_a_killed_and_restarted_server(meanwhile: str, page: Page, app: Example, emulator: Emulator) -> None:
    """A page outlives the server, also behind a proxy that says 502: no status twice, none missing that a poll saw."""
    task = Scripted(emulator)
    await page.goto(f"{app.url}/tasks/{task.id}")
    await task.go("CREATED", "QUEUED", on=page)
    await app.kill()
    polls = len(task.said)
    await expect(page.locator(".now")).to_contain_text("Connection lost")
    if meanwhile == "a proxy":
        await _refuse_once(app)
    await app.start()
    while len(task.said) < polls + 2:  # noqa: ASYNC110 - it sets no event of ours
        await asyncio.sleep(0.05)
    await task.go("PROCESSING", "COMPLETED", on=page)
    await expect(page.locator("#answer")).to_have_text("Worth the wait.")
    assert await statuses(page) == task.seen == ["CREATED", "QUEUED", "PROCESSING", "COMPLETED"]


async def test_an_interruption(page: Page, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page says what interrupts its task, comes back at the time it was told, and goes on without a word of it."""
    monkeypatch.setattr(_feeds, "RETRY_AFTER_ERROR", 500)
    monkeypatch.setenv("DISTRIBUTE_API_KEY", emulator.api_key)
    monkeypatch.setenv("DISTRIBUTE_BASE_URL", emulator.base_url)
    task = Scripted(emulator)
    async with serve_fastapi(fastapi_app.app) as site:
        await page.goto(f"{site.url}/tasks/{task.id}")
        await task.go("CREATED", "QUEUED", on=page)
        emulator.down = fault.status(302)
        await expect(page.get_by_role("alert")).to_contain_text("didn't answer as it should")
        emulator.down = None
        await task.go("PROCESSING", on=page)
        await expect(page.locator(".problem")).to_be_empty()
        await task.go("COMPLETED", on=page)
        await expect(page.locator("#answer")).to_have_text("Worth the wait.")
        assert await statuses(page) == task.seen == ["CREATED", "QUEUED", "PROCESSING", "COMPLETED"]


async def _refuse_once(app: Example) -> None:
    """In the application's place, answer the page's next try as a proxy does that finds nobody behind it."""
    asked = asyncio.Event()

    async def refuse(_request: web.BaseRequest) -> web.StreamResponse:
        asked.set()
        return web.Response(status=502)

    runner = web.ServerRunner(web.Server(refuse))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", app.port, reuse_address=True).start()
    await asked.wait()
    await runner.cleanup()


async def test_what_models_say_is_text(page: Page, app: Example, emulator: Emulator) -> None:
    """Markup in an answer or a status is shown as it is written, and does nothing, on both pages."""
    task = Scripted(emulator, SCRIPT)
    task.status = "<i>ODD</i>"
    await page.goto(f"{app.url}/tasks/{task.id}")
    await task.go("<i>ODD</i>", "COMPLETED", on=page)
    await expect(page.locator("#answer")).to_have_text(SCRIPT)
    assert await page.title() == "Task"
    assert await statuses(page) == ["<i>ODD</i>", "COMPLETED"]
    await page.goto(app.url)
    await expect(page.locator(".card .answer")).to_have_text(SCRIPT)
    assert await page.locator("main :is(script, b, i)").count() == 0


async def test_a_task_that_fails(page: Page, app: Example, emulator: Emulator) -> None:
    """A task that failed says so, in words, and has no answer."""
    await page.goto(f"{app.url}/tasks/{emulator.add_task([(0, 'ERROR')])}")
    await expect(page.get_by_role("alert")).to_contain_text("The task failed")
    assert await statuses(page) == ["ERROR"]
    await expect(page.locator("#answer")).to_be_empty()


async def test_the_script_of_the_how_to_page(page: Page, app: Example, emulator: Emulator) -> None:
    """The few lines in the documentation show a task's statuses and its answer."""
    [script] = blocks("show-progress-fastapi.md", "js")
    nothing = '<ol id="statuses"></ol><pre id="answer"></pre>'
    await page.route("**/nothing", lambda route: route.fulfill(body=nothing, content_type="text/html"))
    await page.goto(f"{app.url}/nothing")
    task_id = emulator.add_task([(0, "QUEUED"), (1, "COMPLETED")], text=SCRIPT)
    await page.evaluate(f"(taskId) => {{ {script} }}", task_id)
    await expect(page.locator("#answer")).to_have_text(SCRIPT)
    await expect(page.locator("#statuses li").last).to_have_text("COMPLETED")


async def test_for_all_eyes(page: Page, app: Example, emulator: Emulator) -> None:
    """Light or dark, wide or narrow: nothing is cut off, texts stand out 4.5 to 1, and nothing moves if so wished."""
    task = Scripted(emulator, "word " * 100)
    await page.goto(f"{app.url}/tasks/{task.id}")
    await task.go("CREATED", "QUEUED", "POSTPONED", "ASSIGNED_CONNECTIONS", "PROCESSING", on=page)
    assert await page.evaluate(_ANIMATION) == "breathe"
    await page.emulate_media(reduced_motion="reduce")
    assert await page.evaluate(_ANIMATION) == "none"
    await task.go("COMPLETED", on=page)
    for path in (f"/tasks/{task.id}", "/"):
        await page.goto(app.url + path)
        await expect(page.locator(".answer")).not_to_be_empty()
        for scheme, width in itertools.product(SCHEMES, (1280, 320)):
            await page.emulate_media(color_scheme=scheme)
            await page.set_viewport_size({"width": width, "height": 800})
            assert await page.evaluate("document.documentElement.scrollWidth") == width
            assert await page.evaluate(_FAINT_TEXTS) == []


_ANIMATION = "getComputedStyle(document.querySelector('.current .track span')).animationName"

# Texts that stand out from the ground behind them by less than WCAG's 4.5 to 1.
_FAINT_TEXTS = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = numbers(color).slice(0, 3).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (numbers(color)[3] !== 0) return color;
    }
  };
  return [...document.querySelectorAll("main *")]
    .filter((element) => element.offsetParent)
    .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .filter((element) => {
      const [low, high] = [getComputedStyle(element).color, ground(element)].map(light).sort((a, b) => a - b);
      return (high + 0.05) / (low + 0.05) < 4.5;
    })
    .map((element) => element.outerHTML);
}"""
