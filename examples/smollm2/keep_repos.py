"""Keep what `make sentences` made of a sentence in a folder next to this file, without the labelled set and the
answers, and with the base's name on the Hub. Each folder is a whole repo, so it has the code and the base's tokenizer.

    python -m iti_llama.examples.smollm2.keep_repos [FOLDER]

FOLDER holds what was made. Without it the code is copied again and the card renewed, which `make example-code` does
when the code of the root or the words of the cards have changed.
"""

import json
import shutil
import sys
from pathlib import Path

from iti_llama import smollm2
from iti_llama.toolkit.convert.smollm2 import ORIGINAL
from iti_llama.toolkit.foundation.files import write_text
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.repo.card import renew_card
from iti_llama.toolkit.repo.folder import CODE, TOKENIZER_FILES
from iti_llama.toolkit.repo.push import RECORDS
from iti_llama.toolkit.repo.steered_repo import SteeredRepo, change_fields


HERE = Path(__file__).parent

NAMES = ("brief",)
"""The kept ones of the sentences in `examples/sentences`."""


def copy_code(kept: Path) -> None:
    """Replace the code in a kept repo by that of the root."""
    for name in CODE:
        shutil.copyfile(ROOT / name, kept / name)


def copy_tokenizer(kept: Path) -> None:
    """Copy the base's tokenizer, without the line breaks that make its JSON half as long again."""
    for path in filter(Path.is_file, (Path(smollm2(), name) for name in TOKENIZER_FILES)):
        text = path.read_text(encoding="utf-8")
        if path.name == "tokenizer.json":
            text = json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")) + "\n"
        write_text(kept / path.name, text)


def keep_repo(made: Path, kept: Path) -> Path:
    """Copy the parts of a repo that fit into kilobytes.

    Raises:
        ValueError: if no strength was chosen, or the steering failed a check.
    """
    repo = SteeredRepo.open(made)
    if not repo.is_measured or repo.sweep["why"] or repo.failed_checks:
        why = repo.sweep["why"] or ", ".join(repo.failed_checks) or "not measured"
        raise ValueError(f"{made} is not kept: {why}")
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for name in ("config.json", "generation_config.json", repo.default.file, "README.md", *RECORDS):
        shutil.copyfile(made / name, kept / name)
    copy_code(kept)
    copy_tokenizer(kept)
    change_fields(kept, base_model_name_or_path=ORIGINAL)
    renew_card(kept)
    return kept


if __name__ == "__main__":
    for name in NAMES:
        if len(sys.argv) > 1:
            keep_repo(Path(sys.argv[1], name), HERE / name)
        else:
            copy_code(HERE / name)
            renew_card(HERE / name)
        print(HERE / name)
