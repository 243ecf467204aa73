"""Take the picture of the page in README.md: `make screenshot`."""

import shutil
import sys

from playwright.sync_api import sync_playwright

from iti_llama.toolkit.cli.options import load
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.space.build_page import page_of


QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]

_, url, _ = page_of(str(ROOT), *load(str(ROOT))).launch(block=False)
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    tab.goto(url)
    tab.wait_for_function("document.querySelector('#iti-status')?.innerText?.includes('Full colour')")
    tab.get_by_text("Heads (layer.head)").click()
    tab.wait_for_timeout(1500)  # the curve and the heads are drawn
    tab.screenshot(path=sys.argv[1], full_page=True)
    browser.close()
