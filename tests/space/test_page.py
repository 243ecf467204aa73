"""The page as visitors meet it: in headless Chromium at desktop and phone width, and by gradio_client.

Runs in an environment of its own, `make test-space`, with Chromium from the system's packages."""

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from iti_llama.toolkit.cli.options import load
from iti_llama.toolkit.foundation.package import ROOT


gradio_client = pytest.importorskip("gradio_client", reason="gradio is not installed: make test-space")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-space")

from iti_llama.toolkit.space.build_page import page_of  # noqa: E402
from iti_llama.toolkit.space.page import Limits  # noqa: E402
from iti_llama.toolkit.space.steered import Asked  # noqa: E402


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def page():
    model, tokenizer = load(str(ROOT))
    return page_of(str(ROOT), model, tokenizer, limits=Limits(a_minute=10_000))


@pytest.fixture(scope="module")
def url(page):
    _, url, _ = page.launch(port=None, block=False)
    return url


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@contextmanager
def tab(browser, url, width="desktop", dark=False):
    """A tab on the page, once it has answered; no error may have gone to its console."""
    size, errors = dict(zip(("width", "height"), WIDTHS[width], strict=True)), []
    opened = browser.new_page(viewport=size, color_scheme="dark" if dark else "light")
    opened.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(url)
    answered(opened)
    yield opened
    opened.close()
    assert not errors


def answered(tab, *words):
    """Wait until the page has answered, and its status says these words."""
    wanted = ["heads, scope", *words]
    tab.wait_for_function(
        "words => words.every(word => document.querySelector('#iti-status')?.innerText?.includes(word))", arg=wanted
    )


def shown(tab):
    return [tab.inner_text(f"#iti-{sign} pre").rstrip() for sign in ("minus", "plain", "plus")]


def expected(page, prompt, alpha, scope="all", heads=None):
    places = tuple(range(len(page.names))) if heads is None else tuple(page.names.index(name) for name in heads)
    *_, answers = page.steered.answers(Asked(prompt, alpha, scope, places))
    return [answer.text.rstrip() for answer in answers]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_first_visit_shows_three_answers_and_their_tests(page, url, browser, width):
    with tab(browser, url, width) as opened:
        found = shown(opened)
        assert found == expected(page, page.examples[0], page.steered.alpha) and found[1] != found[2]
        assert "passes its" in opened.inner_text("#iti-plus")
        boxes = [opened.locator(f"#iti-{sign}").bounding_box() for sign in ("minus", "plain", "plus")]
        beside = boxes[0]["y"] == boxes[1]["y"] == boxes[2]["y"]
        assert beside == (width == "desktop")
        assert opened.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width][0]
        assert opened.locator("#iti-plus span[title*='sigmas']").count() > 5
        assert opened.locator("#iti-plus .iti-differs").count() > 0
        assert opened.locator("#iti-curve svg, #iti-curve canvas").count() > 0


def test_the_slider_the_scope_and_the_heads_change_the_answers_and_the_address(page, url, browser):
    with tab(browser, url) as opened:
        slider = opened.locator("#iti-alpha input[type=range]")
        slider.focus()
        for _ in range(4):
            slider.press("ArrowLeft")
        opened.mouse.move(5, 5)
        number = opened.locator("#iti-alpha input[type=number]")
        alpha = float(number.input_value())
        assert alpha == pytest.approx(page.steered.alpha - 0.2)
        opened.click("#iti-go")
        opened.wait_for_function(f"document.querySelector('#iti-plus h3')?.innerText.includes('+{alpha:g}')")
        answered(opened)
        assert shown(opened) == expected(page, page.examples[0], alpha)
        assert f"alpha={alpha:g}" in opened.url
        opened.get_by_text("Heads (layer.head)").click()
        opened.locator("#iti-heads label", has_text=page.names[0]).first.click()
        answered(opened, f"{len(page.names) - 1} of")
        assert shown(opened) == expected(page, page.examples[0], alpha, heads=page.names[1:])
        opened.get_by_label("generated").click()
        answered(opened, "scope generated")
        assert shown(opened) == expected(page, page.examples[0], alpha, "generated", page.names[1:])
        link, before = opened.url, shown(opened)
    with tab(browser, link, "phone", dark=True) as opened:
        answered(opened, f"{len(page.names) - 1} of", "scope generated")
        assert shown(opened) == before
        assert float(opened.locator("#iti-alpha input[type=number]").input_value()) == alpha


def test_a_too_long_prompt_is_refused_in_words(url, browser):
    with tab(browser, url) as opened:
        opened.fill("#iti-prompt textarea", "x = 1\n" * 800)
        opened.click("#iti-go")
        opened.wait_for_function("document.querySelector('#iti-status')?.innerText.includes('at most')")
        assert "tokens; at most" in opened.inner_text("#iti-status")
        opened.fill("#iti-prompt textarea", "  ")
        opened.click("#iti-go")
        opened.wait_for_function("document.querySelector('#iti-status')?.innerText.includes('empty')")


def test_every_control_has_a_name_for_a_screen_reader(url, browser):
    with tab(browser, url) as opened:
        opened.get_by_text("Heads (layer.head)").click()
        unnamed = opened.evaluate(
            """[...document.querySelectorAll('#component-0 input, textarea, input, button')].filter((one) =>
                one.offsetParent !== null && !(one.labels?.length || one.getAttribute('aria-label') || one.title
                || one.getAttribute('aria-labelledby') || one.innerText)).map((one) => one.outerHTML)"""
        )
        assert unnamed == []


def test_an_answer_that_is_markup_stays_text(page, url, browser):
    with tab(browser, url) as opened:
        opened.fill("#iti-prompt textarea", '<img src=x onerror="document.title=\'taken\'"> def f(x):\n    """')
        opened.click("#iti-go")
        opened.wait_for_function("location.search.includes('onerror')")
        answered(opened)
        assert opened.title() != "taken"


def test_the_client_gets_what_python_gets(page, url):
    client = gradio_client.Client(url, verbose=False)
    for prompt, alpha, scope, heads in (
        (page.examples[0], 0.4, "all", None),
        (page.examples[1], 0.5, "generated", page.names[:5]),
    ):
        found = client.predict(prompt, alpha, scope, heads, api_name="/answer")
        assert [one["text"].rstrip() for one in found] == expected(page, prompt, alpha, scope, heads)
        assert [one["alpha"] for one in found] == [-alpha, 0.0, alpha]


def test_twenty_users_at_once_each_with_an_own_strength(page, url):
    asked = [(page.examples[i % 4], round(page.largest * (i + 1) / 20, 3)) for i in range(20)]

    def visit(one):
        return gradio_client.Client(url, verbose=False).predict(*one, api_name="/answer")

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(visit, asked))
    for (prompt, alpha), answers in zip(asked, found, strict=True):
        assert [one["alpha"] for one in answers] == [-alpha, 0.0, alpha]
        assert [one["text"].rstrip() for one in answers] == expected(page, prompt, alpha)


@pytest.mark.parametrize(
    "prompt,alpha,scope,heads,said",
    [
        ("def f(x):", 1e9, "all", None, "expected from"),
        ("def f(x):", 0.5, "everything", None, "are offered"),
        ("def f(x):", 0.5, "all", ["99.99"], "no head"),
        ("", 0.5, "all", None, "empty"),
        ("x" * 100_000, 0.5, "all", None, "characters"),
    ],
)
def test_what_is_not_offered_is_refused_in_words(url, prompt, alpha, scope, heads, said):
    client = gradio_client.Client(url, verbose=False)
    with pytest.raises(Exception, match=said):
        client.predict(prompt, alpha, scope, heads, api_name="/answer")


def test_no_file_of_the_machine_is_served(url):
    for path in ("config.json", "/etc/passwd", f"{ROOT}/config.json", "../config.json", "app.py"):
        for address in (f"{url}gradio_api/file={path}", f"{url}file={path}", f"{url}{path.lstrip('/')}"):
            with pytest.raises(HTTPError):
                urlopen(address)


def test_an_address_that_asks_too_often_waits():
    model, tokenizer = load(str(ROOT))
    page = page_of(str(ROOT), model, tokenizer, limits=Limits(a_minute=2, max_new_tokens=2))
    _, url, _ = page.launch(block=False)
    client = gradio_client.Client(url, verbose=False)
    for _ in range(2):
        client.predict("def f(x):", 0.5, api_name="/answer")
    started = time.monotonic()
    with pytest.raises(Exception, match="2 answers a minute"):
        client.predict("def f(x):", 0.5, api_name="/answer")
    assert time.monotonic() - started < 30


def test_the_app_of_the_space_starts_where_the_package_is_not_installed(tmp_path):
    """Hugging Face's Spaces install requirements.txt, and run app.py in a clone."""
    program = (
        "import sys, runpy\n"
        "sys.meta_path = [one for one in sys.meta_path if 'editable' not in repr(one).lower()]\n"
        f"found = runpy.run_path({str(ROOT / 'app.py')!r}, run_name='app')\n"
        "page = found['page_of'](str(found['ROOT']), *found['load'](str(found['ROOT'])))\n"
        "print(page.answer(page.examples[0], page.steered.alpha)[2]['text'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "return n > 1 and all(" in done.stdout
