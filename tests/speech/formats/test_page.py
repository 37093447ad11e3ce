"""The page in a real browser: what a click, a key, a name and an export do. Nothing here reaches a network."""

import dataclasses
import json
import math
import shutil
import struct
import wave
from pathlib import Path

import pytest
from hypothesis import given, settings
from transcripts import transcripts

from wieldy.report import Metric, Report
from wieldy.speech import formats
from wieldy.speech.formats import FORMATS
from wieldy.speech.transcript import UNKNOWN, Transcript, Turn, Word

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
]

LINES = (
    (500, "Ada", "Good morning, everyone. We have three points today."),
    (4000, "Bo", "The café is nearly ready."),
    (6500, "Cleo", "And the budget?"),
    (7300, "Bo", "Yes."),
    (8200, "Ada", "The budget is what we said. Let us keep it."),
    (14_500, "Ada", "Anything else?"),
    (16_000, "Cleo", "No, thank you."),
)


def meeting() -> Transcript:
    """Three people in 20 s; Bo's "Yes." falls into what Cleo says."""
    words, turns = [], []
    for line, (start, speaker, text) in enumerate(LINES):
        clock = start
        for number, part in enumerate(text.split()):
            words.append(Word(clock, clock + 300, part, 0.3 if number == 2 else 0.9, speaker, 0.8))
            clock += 350
        turns.append(Turn(start, clock + 200, speaker, 0.9 - line / 10))
    words.append(Word(19_000, 19_400, "mhm", None, UNKNOWN))
    return Transcript(
        "board meeting",
        tuple(sorted(words, key=lambda word: word.start_ms)),
        formats.fields.merge_turns(turns),
        duration_ms=20_000,
        meta={"models": {"recognizer": "tiny.en"}},
        warnings=("Two voices are much alike.",),
        report=Report("Transcription", (Metric.of("recognition", 8.25, "s"),)),
    )


def hum(path: Path, seconds: int = 20) -> Path:
    """A recording to play: a quiet tone."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        tone = (int(500 * math.sin(index / 5)) for index in range(seconds * 8000))
        file.writeframes(b"".join(struct.pack("<h", sample) for sample in tone))
    return path


@pytest.fixture(scope="module")
def chromium():
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium to look at the page with: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """`board meeting.html` beside its recording."""
    folder = tmp_path_factory.mktemp("pages")
    audio = hum(folder / "board meeting.wav")
    formats.write(meeting(), folder / "board meeting.html", audio=audio, embed_audio=False)
    return folder


class Window:
    """A browser window and everything in it that a page should not do."""

    def __init__(self, chromium, **options):
        self.context = chromium.new_context(**{"viewport": {"width": 1100, "height": 700}, **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.asked: list[str] = []
        self.wrong: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", self.note_request)
        self.page.on("dialog", self.agree)

    def note_request(self, request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.wrong.append(request.url)

    def agree(self, dialog) -> None:
        self.asked.append(dialog.type)
        dialog.accept()


@pytest.fixture(scope="module")
def window(chromium):
    window = Window(chromium)
    yield window
    window.context.close()


@pytest.fixture
def page(window, folder):
    """The meeting, opened anew."""
    window.page.goto("about:blank")
    window.page.goto((folder / "board meeting.html").as_uri())
    yield window.page
    assert window.wrong == []


@pytest.fixture
def open_page(chromium):
    """Opens any page in a window of its own."""
    windows = []

    def open_one(path: Path, **options):
        windows.append(Window(chromium, **options))
        windows[-1].page.goto(path.as_uri())
        return windows[-1].page

    yield open_one
    for window in windows:
        window.context.close()
        assert window.wrong == []


def rename(page, name: str, to: str) -> None:
    page.locator("#voices .who", has_text=name).click()
    page.locator("input.rename").fill(to)
    page.locator("input.rename").press("Enter")


def until(page, expression: str) -> None:
    """Wait for something in the page. Playwright's own way evaluates strings, which the page's policy forbids."""
    for _ in range(500):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    pytest.fail(f"never came true: {expression}")


def voices(page) -> list[str]:
    return page.locator("#voices .who").all_inner_texts()


def now(page) -> list[str]:
    return page.locator(".w.now").all_inner_texts()


def exported(page, name: str) -> tuple[str, bytes]:
    page.locator("#export").click()
    with page.expect_download() as download:
        page.locator(f"#formats [data-format={name}]").click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def written(transcript: Transcript, name: str, tmp_path: Path) -> bytes:
    path = formats.write(transcript, tmp_path / f"file{FORMATS[name].suffix}", name, overwrite=True)
    return path.read_bytes()


def test_a_click_on_a_word_goes_there(page):
    page.locator(".w", has_text="budget?").click()
    word = next(word for word in meeting().words if word.text == "budget?")
    assert page.evaluate("audio.currentTime") == pytest.approx(word.start_ms / 1000, abs=0.001)
    assert now(page) == ["budget?"]
    assert page.locator(".said.current .who").inner_text() == "Cleo"
    assert page.locator("#time").inner_text() == "0:07"


def test_space_plays_and_the_word_that_is_spoken_is_marked(page):
    page.locator(".w", has_text="morning,").click()
    page.keyboard.press("Space")
    until(page, "$('.w.now')?.textContent === 'everyone.'")
    assert page.locator("#play").get_attribute("aria-label") == "Pause"
    page.keyboard.press("Space")
    assert page.evaluate("audio.paused") is True


def test_scrolling_away_while_it_plays_stays_away_until_asked(page):
    page.set_viewport_size({"width": 1100, "height": 420})
    page.keyboard.press("Space")
    page.mouse.move(500, 250)
    page.mouse.wheel(0, 300)
    page.locator("#follow").wait_for()
    page.locator("#follow").click()
    assert not page.locator("#follow").is_visible()
    page.set_viewport_size({"width": 1100, "height": 700})


def test_two_who_speak_at_once_are_both_marked(page):
    page.evaluate("seek(7350)")
    assert sorted(now(page)) == ["Yes.", "budget?"]
    assert page.locator(".said", has_text="Yes.").locator(".at-once").inner_text() == "at the same time"


def test_keys_move_through_the_recording(page):
    page.evaluate("seek(8200)")
    for key, expected in (("ArrowRight", 13.2), ("ArrowLeft", 8.2), ("j", 14.5), ("k", 8.2), ("k", 7.3)):
        page.keyboard.press(key)
        assert page.evaluate("audio.currentTime") == pytest.approx(expected, abs=0.001), key
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    page.keyboard.press("/")
    page.keyboard.type("j / ? k")
    assert page.evaluate("audio.currentTime") == pytest.approx(7.3, abs=0.001), "letters are for the search field"


def test_lanes_times_and_links_lead_to_their_moment(page, folder):
    box = page.locator("#lanes").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    assert page.evaluate("audio.currentTime") == pytest.approx(10, abs=0.05)
    page.locator(".when", has_text="0:16").click()
    assert page.evaluate("audio.currentTime") == pytest.approx(16, abs=0.001)
    page.goto((folder / "board meeting.html").as_uri() + "#t=8.2")
    page.reload()
    assert now(page) == ["The"]


def test_unsure_words_are_underlined(page):
    unsure = page.locator(".unsure").all_inner_texts()
    assert unsure == [word.text for word in meeting().words if word.confidence == 0.3]
    assert "underline" in page.locator(".unsure").first.evaluate("span => getComputedStyle(span).textDecorationLine")
    page.locator(".unsure").first.hover()
    assert page.locator(".unsure").first.get_attribute("title") == "0:01, 30 % sure"


def test_a_new_name_is_everywhere_and_can_be_taken_back(page):
    rename(page, "Bo", "Zoë O'Neil")
    assert voices(page) == ["Ada", "Zoë O'Neil", "Cleo", UNKNOWN]
    assert page.locator("#transcript .who", has_text="Zoë O'Neil").count() == 2
    assert "Zoë O'Neil" in page.locator("#toast").inner_text()
    page.locator("#toast button").click()
    assert voices(page) == ["Ada", "Bo", "Cleo", UNKNOWN]


def test_a_name_can_be_changed_in_the_text_and_escape_leaves_it(page):
    page.locator("#transcript .who", has_text="Cleo").first.click()
    page.keyboard.type("Nobody")
    page.keyboard.press("Escape")
    assert page.locator("#transcript .who", has_text="Cleo").count() == 2
    page.locator("#transcript .who", has_text="Cleo").first.click()
    page.keyboard.type("Dora")
    page.keyboard.press("Enter")
    assert voices(page) == ["Ada", "Bo", "Dora", UNKNOWN]


def test_a_name_that_is_taken_asks_and_merges(page):
    paragraphs = page.locator(".said").count()
    rename(page, "Bo", "Cleo")
    assert page.locator("#merge h2").inner_text() == "Merge Bo into Cleo?"
    page.locator("#merge button", has_text="Cancel").click()
    assert voices(page) == ["Ada", "Bo", "Cleo", UNKNOWN]
    rename(page, "Bo", "Cleo")
    page.locator("#merge button", has_text="Merge").click()
    until(page, "state.names.size")
    assert voices(page) == ["Ada", "Cleo", UNKNOWN]
    assert page.locator(".said").count() == paragraphs - 2
    assert "2 speakers" in page.locator("#facts").inner_text()
    page.keyboard.press("Control+z")
    assert voices(page) == ["Ada", "Bo", "Cleo", UNKNOWN]


def test_exports_have_the_bytes_of_the_python_writers(page, tmp_path):
    for name in ("json", "srt"):
        filename, content = exported(page, name)
        assert filename == "board meeting" + FORMATS[name].suffix
        assert content == written(meeting(), name, tmp_path)
    rename(page, "Bo", "Cleo")
    page.locator("#merge button", has_text="Merge").click()
    until(page, "state.names.size")
    rename(page, "Ada", "Ada & Söhne: <i>")
    expected = meeting().renamed({"Bo": "Cleo", "Ada": "Ada & Söhne: <i>"})
    offered = page.locator("#formats [data-format]").evaluate_all("items => items.map((item) => item.dataset.format)")
    assert sorted(offered) == sorted(FORMATS)
    for name in set(offered) - {"html"}:
        filename, content = exported(page, name)
        assert filename == "board meeting" + FORMATS[name].suffix
        assert content == written(expected, name, tmp_path), name


def test_exports_agree_on_random_meetings(page):
    pairs = []

    @settings(max_examples=10, deadline=None, database=None)
    @given(transcripts(max_words=25))
    def collect(transcript):
        pairs.append(compared(transcript))

    collect()
    check_agreement(page, pairs)


@pytest.mark.slow
def test_exports_agree_on_a_thousand_random_meetings(page):
    pairs = []

    @settings(max_examples=1000, deadline=None, database=None)
    @given(transcripts())
    def collect(transcript):
        pairs.append(compared(transcript))

    collect()
    check_agreement(page, pairs)


def compared(transcript: Transcript) -> dict:
    """A transcript, names to give in it (the second speaker becomes the last, the first a new one), what to expect."""
    speakers = transcript.speakers
    names = {speakers[1]: speakers[-1]} if len(speakers) > 2 else {}
    if speakers:
        names[speakers[0]] = "Zoë & Co"
    changed = transcript.renamed(names)
    text = [name for name in FORMATS if name != "html"]
    return {
        "json": FORMATS["json"].writer(transcript),
        "names": list(names.items()),
        "before": {name: FORMATS[name].writer(transcript) for name in text},
        "after": {name: FORMATS[name].writer(changed) for name in text},
    }


def check_agreement(page, pairs: list[dict]) -> None:
    for pair in pairs:
        before, after = page.evaluate(
            """({json, names}) => {
                const transcript = parse(json), changed = renamed(transcript, new Map(names));
                const all = (from) => Object.fromEntries(EXPORTS.map(({name, write}) => [name, write(from)]));
                return [all(transcript), all(changed)];
            }""",
            pair,
        )
        assert before == pair["before"]
        assert after == (pair["after"] if pair["names"] else after)


def test_the_page_saves_itself_with_its_new_names(page, open_page, folder, tmp_path):
    rename(page, "Cleo", "Dora </script>")
    filename, content = exported(page, "html")
    assert filename == "board meeting.html"
    copy = folder / "copy.html"
    copy.write_bytes(content)
    expected = meeting().renamed({"Cleo": "Dora </script>"})
    assert formats.read(copy) == expected
    again = open_page(copy)
    assert voices(again) == ["Ada", "Bo", "Dora </script>", UNKNOWN]
    again.locator(".w", has_text="budget?").click()
    assert again.evaluate("audio.currentTime") > 0
    assert exported(again, "json")[1] == written(expected, "json", tmp_path)


def test_names_that_are_not_saved_are_not_lost_silently(window, page):
    window.asked.clear()
    rename(page, "Cleo", "Dora")
    page.goto("about:blank")
    assert window.asked == ["beforeunload"]


def test_search_counts_and_walks_through_the_hits(page):
    page.keyboard.press("/")
    page.keyboard.type("THE BUDGET")
    until(page, "$('#hits').textContent === '1 of 2'")
    assert page.evaluate("[...CSS.highlights.get('hit-now')].map(String)") == ["the budget"]
    page.keyboard.press("Enter")
    assert page.locator("#hits").inner_text() == "2 of 2"
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Enter")
    assert page.locator("#hits").inner_text() == "2 of 2"
    page.locator("#next").click()
    assert page.locator("#hits").inner_text() == "1 of 2"
    page.locator("#query").fill("cafe")
    until(page, "$('#hits').textContent === '1 of 1'")
    assert page.evaluate("[...CSS.highlights.get('hit')].map(String)") == ["café"]
    page.locator("#query").fill("zebra")
    until(page, "$('#hits').textContent === 'no hits'")
    page.locator("#query").press("Escape")
    assert page.locator("#query").input_value() == ""
    assert page.evaluate("CSS.highlights.get('hit').size") == 0


def test_warnings_and_the_report_fold_out(page):
    page.locator("#warnings summary").click()
    assert page.locator("#warnings li").all_inner_texts() == ["Two voices are much alike."]
    page.locator("#about summary").click()
    assert "tiny.en" in page.locator("#about").inner_text()
    assert "8.25 s" in page.locator("#about").inner_text()


def test_what_people_say_stays_text(open_page, tmp_path):
    nasty = "<img src=x onerror=alert(1)><script>document.title='bad'</script></script><!--{{style}}\u2028"
    word = Word(0, 500, nasty, 0.2, nasty)
    transcript = Transcript(nasty, (word,), (Turn(0, 500, nasty),), meta={"note": nasty}, warnings=(nasty,))
    formats.write(transcript, tmp_path / "page.html")
    page = open_page(tmp_path / "page.html")
    assert page.locator(".w").evaluate("span => span.textContent") == nasty
    assert page.locator("#voices .who").evaluate("button => button.textContent") == nasty
    assert page.title().startswith("<img")
    assert page.locator("img, script:not(:nth-child(n))").count() == 0
    assert formats.read(tmp_path / "page.html") == transcript
    # Were anything to slip through, the policy would still not run it.
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    assert page.title().startswith("<img")


def test_a_recording_inside_the_page_plays(open_page, folder, tmp_path):
    formats.write(meeting(), tmp_path / "page.html", audio=folder / "board meeting.wav")
    page = open_page(tmp_path / "page.html")
    page.locator(".w", has_text="budget?").click()
    until(page, "audio.readyState > 1 && Math.abs(audio.currentTime - 7.2) < 0.001")


def test_a_recording_that_is_not_there_can_be_chosen(open_page, folder, tmp_path):
    formats.write(meeting(), tmp_path / "page.html", audio=tmp_path / "gone.wav", embed_audio=False)
    page = open_page(tmp_path / "page.html")
    page.locator("#choose").wait_for()
    page.keyboard.press("Space")
    assert page.locator("#toast").inner_text() == "gone.wav is not beside this page or cannot be played"
    page.locator(".w", has_text="budget?").click()
    assert now(page) == ["budget?"]
    page.locator("#choose input").set_input_files(folder / "board meeting.wav")
    until(page, "audio.readyState > 1")
    assert page.evaluate("audio.currentTime") == pytest.approx(7.2, abs=0.001)
    assert not page.locator("#choose").is_visible()


def test_without_scripts_the_text_is_there(open_page, folder):
    page = open_page(folder / "board meeting.html", java_script_enabled=False)
    said = page.locator(".said").all_inner_texts()
    assert len(said) == len(meeting().utterances())
    assert said[0].split(maxsplit=2) == ["Ada", "0:00", LINES[0][2]]
    assert not page.locator(".player").is_visible()


def test_on_a_phone_nothing_is_wider_than_the_screen(open_page, folder):
    page = open_page(folder / "board meeting.html", viewport={"width": 375, "height": 700}, is_mobile=True)
    assert page.evaluate("document.scrollingElement.scrollWidth") == 375
    page.locator("#export").click()
    box = page.locator("#formats").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 375


def test_everything_that_can_be_used_has_a_name(page):
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, a, input, [role=menuitem], dialog, section, main")]
            .filter((it) => !(it.textContent.trim() || it.ariaLabel || it.labels?.length || it.title))
            .map((it) => it.outerHTML)"""
    )
    assert nameless == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((it) => it.id)")
    assert len(ids) == len(set(ids))
    page.locator("#export").focus()
    page.keyboard.press("Enter")
    until(page, "document.activeElement.dataset.format === 'html'")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.format") == "txt"
    page.keyboard.press("Escape")
    assert not page.locator("#formats").is_visible()


def test_paper_has_the_words_and_no_buttons(page):
    page.emulate_media(media="print")
    assert page.locator(".said").first.is_visible()
    for selector in (".player", "#query", "#export"):
        assert not page.locator(selector).is_visible()
    page.emulate_media(media="screen")


@pytest.mark.parametrize("transcript", [Transcript("silence"), dataclasses.replace(meeting(), words=())])
def test_a_page_without_words_says_so(open_page, tmp_path, transcript):
    formats.write(transcript, tmp_path / "page.html")
    page = open_page(tmp_path / "page.html")
    assert page.locator("#transcript").inner_text() == "Nobody says a word in this recording."
    assert page.locator("#voices").is_visible() == bool(transcript.turns)


@pytest.mark.slow
def test_three_hours_open_and_search(open_page, tmp_path):
    """30,000 words; the times are printed, not judged."""
    words = tuple(
        Word(index * 360, index * 360 + 300, f"word{index % 700}", 0.9, f"S{index // 20 % 4}")
        for index in range(30_000)
    )
    formats.write(Transcript("long", words, duration_ms=3 * 3600 * 1000), tmp_path / "page.html")
    page = open_page(tmp_path / "page.html")
    shown, found = page.evaluate(
        """() => {
            const start = performance.now();
            show();
            document.body.offsetHeight;
            const between = performance.now();
            document.querySelector("#query").value = "word69";
            search();
            return [between - start, performance.now() - between];
        }"""
    )
    print(f"30,000 words shown in {shown:.0f} ms, searched in {found:.0f} ms")
    assert page.locator("#hits").inner_text() == f"1 of {sum('word69' in word.text for word in words)}"
    page.locator(".w").nth(29_000).click()
    assert now(page) == [words[29_000].text]


def test_data_in_the_page_is_the_json_file(folder):
    text = (folder / "board meeting.html").read_text(encoding="utf-8")
    data = text.split('id="data">')[1].split("</script>")[0]
    assert data == FORMATS["json"].writer(meeting())
    assert json.loads(data)["name"] == "board meeting"
