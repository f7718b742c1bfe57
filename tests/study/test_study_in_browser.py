"""The page in a real browser, from the first key to the exported file. Skipped where there is no Chromium."""

from __future__ import annotations

import functools
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from toy_study import SYSTEMS, Study, build

from dicetalk.study.analyse import analyse_study
from dicetalk.study.design import Size
from dicetalk.study.key import CheckTrial, PairTrial

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BEST = {"rating": "5", "pair": "1"}  # the digit that stands for the best rating, or for A


@pytest.fixture(scope="module")
def browser() -> Iterator:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is in PATH")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path)
        yield found
        found.close()


@pytest.fixture
def page(browser) -> Iterator:
    """A page that fails the test when it asks for anything strange or logs an error."""
    context = browser.new_context(accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    opened.problems = []
    opened.requested = []
    opened.on("console", lambda message: opened.problems.append(message.text))
    opened.on("pageerror", lambda error: opened.problems.append(str(error)))
    opened.on("request", lambda request: opened.requested.append(request.url))
    yield opened
    context.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, study: Study) -> Study:
    """Two participants, 2 ratings + 1 comparison + 2 checks each."""
    root = tmp_path_factory.mktemp("small")
    key = build(root, study.folders, Size(2, 2, 1, 2))
    return Study(root, study.folders, root / "study/index.html", root / "key.json", key)


@pytest.fixture
def address(small: Study) -> Iterator[str]:
    """The study on a static server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(small.page.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()


def focused(page) -> str:
    """Return what has the focus, as its text or label."""
    text = page.evaluate("(document.activeElement.labels?.[0] ?? document.activeElement).innerText")
    return " ".join(text.split())


def tab_to(page, text: str) -> None:
    """Press Tab until an element with this text has the focus."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if focused(page) == text:
            return
    raise AssertionError(f"Tab never reaches {text!r}")


def begin(page, address: str, participant: int) -> None:
    page.goto(f"{address}?participant={participant}")
    page.get_by_role("checkbox", name="I am an adult").check()
    page.get_by_role("button", name="Begin").click()


def answer_step(page) -> None:
    """Play and answer the step that is shown, with the mouse."""
    if page.get_by_role("button", name="Continue").is_visible():
        page.get_by_role("button", name="Continue").click()
    for player in page.locator("#players button").all():
        player.click()
        expect(player).to_contain_text("again")
    for group in page.locator(".question").all():
        group.get_by_role("radio").first.check()
    page.get_by_role("button", name="Next").click()


def test_keyboard_alone_leads_from_the_first_screen_to_the_file(page, small: Study, tmp_path: Path) -> None:
    page.goto(small.page.as_uri())
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    tab_to(page, "Participant number, if you were given one (1 to 2)")
    page.keyboard.type("9")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").first).to_contain_text("between 1 and 2")
    page.keyboard.press("Backspace")
    page.keyboard.type("1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").first).to_contain_text("agree")  # and the focus is on the box
    page.keyboard.press("Space")
    tab_to(page, "Begin")
    page.keyboard.press("Enter")

    slot = small.key.slots[0]
    parts = [t.part if isinstance(t := small.key.trials[name], CheckTrial) else t.kind for name in slot]
    for step, (name, part) in enumerate(zip(slot, parts, strict=True)):
        trial = small.key.trials[name]
        if step == 0 or part != parts[step - 1]:
            expect(page.get_by_role("heading", level=1)).to_be_focused()
            tab_to(page, "Continue")
            page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name=f"Step {step + 1}:")).to_be_focused()
        expect(page.get_by_role("progressbar", name="Progress")).to_have_js_property("value", step)
        if step == 0:  # answers are locked, and going on says why
            expect(page.get_by_role("radio").first).to_be_disabled()
            tab_to(page, "Next")
            page.keyboard.press("Space")
            expect(page.locator("#trial-error")).to_contain_text("to its end")
            assert focused(page) == "Play video"
            page.keyboard.press("Space")
        else:
            for player in ("Play video A", "Play video B") if part == "pair" else ("Play video",):
                tab_to(page, player)
                page.keyboard.press("Space")
                expect(page.get_by_role("button", name=f"{player} again")).to_be_visible()
        expect(page.locator("#status")).to_have_text("You can answer now.")
        if step == 0:  # one question by arrow keys: two steps from the first answer
            page.keyboard.press("Tab")
            assert focused(page) == "1 not at all"
            page.keyboard.press("Space")
            page.keyboard.press("ArrowRight")
            page.keyboard.press("ArrowRight")
            expect(page.get_by_role("radio", name="3").first).to_be_checked()
            tab_to(page, "Next")
            page.keyboard.press("Enter")
            expect(page.locator("#trial-error")).to_have_text("Please answer: Lip sync, Quality, Smoothness.")
            rest = 3
        else:
            page.keyboard.press("Tab")
            rest = 4
        expected = trial.expected if isinstance(trial, CheckTrial) else None
        digit = {None: BEST[part], "a": "1", "b": "3"}.get(expected, str(expected))
        for _ in range(rest):
            page.keyboard.press(digit)
        assert focused(page) == "Next"
        page.keyboard.press("Enter")

    expect(page.get_by_role("heading", name="Thank you")).to_be_focused()
    tab_to(page, "Save my answers")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    download.value.save_as(tmp_path / download.value.suggested_filename)
    expect(page.locator("#saved")).to_contain_text(download.value.suggested_filename)

    (file,) = tmp_path.glob("study-*.json")
    assert json.loads(page.locator("#as-text").input_value()) == json.loads(file.read_text())
    analysis = analyse_study([file], small.key)
    (rater,) = analysis["raters"]["kept"]
    assert (rater["participant"], rater["answers"], rater["checks_passed"]) == (1, len(slot), 2)
    answers = {answer["trial"]: answer["values"] for answer in json.loads(file.read_text())["answers"]}
    assert answers[slot[0]] == {"emotion": 3, "lip_sync": 5, "quality": 5, "smoothness": 5}
    pairs = [name for name in slot if isinstance(small.key.trials[name], PairTrial)]
    assert len(pairs) == 1 and all(set(answers[name].values()) == {"a"} for name in pairs)
    assert analysis["preferences"]["left_share"] == 1.0
    folder = small.page.parent.as_uri()
    assert all(address.startswith(folder) for address in page.requested) and len(page.requested) > 5
    assert not [name for name in SYSTEMS if any(name in address for address in page.requested)]
    assert page.problems == []


def media_of(trial) -> set[str]:
    return {trial.left, trial.right} if isinstance(trial, PairTrial) else {trial.stimulus}


def test_on_a_server_answers_survive_a_reload_and_a_missing_video(page, small: Study, address: str) -> None:
    slot = small.key.slots[1]
    used = [media_of(small.key.trials[name]) for name in slot]
    lost, token = next(
        (step, token)
        for step in range(2, len(slot))
        for token in used[step]
        if sum(token in media for media in used) == 1
    )
    page.route(f"**/{token}.mp4", lambda route: route.abort())
    begin(page, address, 2)
    answer_step(page)
    page.reload()
    expect(page.locator("#resume-text")).to_have_text(
        f"You have done 1 of {len(slot)} steps in this browser."
    )
    page.get_by_role("button", name="Continue").click()
    with page.expect_download() as early:
        page.get_by_role("button", name="Continue").click()  # past the explanation
        page.get_by_role("button", name="Save my answers so far").click()
    assert len(json.loads(Path(early.value.path()).read_text())["answers"]) == 1
    for step in range(1, len(slot)):
        if step == lost:
            if page.get_by_role("button", name="Continue").is_visible():
                page.get_by_role("button", name="Continue").click()
            page.get_by_role("button", name="Skip this step").click()
        else:
            answer_step(page)
    page.reload()  # a finished study shows its end again
    with page.expect_download() as download:
        page.get_by_role("button", name="Save my answers", exact=True).click()
    result = json.loads(Path(download.value.path()).read_text())
    assert result["participant"] == 2 and result["finished"]
    assert [answer["trial"] for answer in result["answers"]] == [*slot[:lost], *slot[lost + 1 :]]
    assert result["problems"] == [{"trial": slot[lost], "reason": "cannot_play"}]
    with page.expect_download():
        page.get_by_role("button", name="Next participant").click()
    expect(page.get_by_role("button", name="Begin")).to_be_visible()
    assert page.evaluate("Object.keys(localStorage)") == []
    origin = address.removesuffix("index.html")
    assert all(requested.startswith(origin) for requested in page.requested if requested[:4] == "http")
    assert all("ERR_FAILED" in problem for problem in page.problems)  # the video that was taken away


def test_a_skipped_ahead_or_silent_video_does_not_count_as_watched(page, small: Study) -> None:
    begin(page, small.page.as_uri(), 1)
    page.get_by_role("button", name="Continue").click()
    video = page.locator("video")
    video.evaluate(
        "video => new Promise((done) => { video.onended = done; video.currentTime = 99; video.play(); })"
    )
    expect(page.locator("#status")).to_have_text("Please play video to its end.")
    expect(page.get_by_role("radio").first).to_be_disabled()
    video.evaluate("video => { video.muted = true; }")
    page.get_by_role("button", name="Play video").click()
    expect(page.locator("#status")).to_contain_text("turn on the sound")
    expect(page.get_by_role("radio").first).to_be_disabled()
    video.evaluate("video => { video.muted = false; }")
    page.get_by_role("button", name="Play video").click()
    expect(page.get_by_role("radio").first).to_be_enabled()


def test_without_storage_the_page_says_so_and_works(page, small: Study) -> None:
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('denied'); } });"
    )
    page.goto(small.page.as_uri())
    expect(page.locator("#no-storage")).to_be_visible()
    begin(page, small.page.as_uri(), 1)
    answer_step(page)
    expect(page.get_by_role("heading", name="Step 2:")).to_be_focused()


def test_damaged_storage_is_ignored(page, small: Study) -> None:
    store = f"dicetalk-study:{small.key.study}"
    for content in ("{", "null", '{"study": 1}', json.dumps({"study": small.key.study, "answers": []})):
        page.add_init_script(f"localStorage.setItem({store!r}, {content!r});")
        page.goto(small.page.as_uri())
        expect(page.get_by_role("button", name="Begin")).to_be_visible()
    assert page.problems == []
