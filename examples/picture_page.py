"""Take the picture of the page, with SmolLM2 steered to answer in one short sentence: `make pictures`."""

import shutil
import sys

from playwright.sync_api import sync_playwright
from transformers import AutoTokenizer

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.space.build_page import page_of


QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
REPO = ROOT / "examples" / "smollm2" / "brief"

path, base = sys.argv[1:]
model = ITILlamaForCausalLM.from_pretrained(REPO, base_model_name_or_path=base, dtype="auto").eval()
_, url, _ = page_of(str(REPO), model, AutoTokenizer.from_pretrained(REPO)).launch(block=False)
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    tab.goto(url)
    full = "document.querySelector('#iti-status')?.innerText?.includes('Full colour')"
    tab.wait_for_function(full, timeout=300_000)  # the page has answered its first question
    tab.wait_for_timeout(1500)  # the curve and the heads are drawn
    tab.screenshot(path=path, full_page=True)
    browser.close()
