"""What `iti-llama run` made of each behaviour, as the folders beside this file: without the labelled set and the
answers, the base by its name on the Hub. Code and tokenizer are links, since they are the same in each.

    python -m iti_llama.examples.smollm2.keep_repos FOLDER
"""

import json
import os
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

from .behaviours import SENTENCES
from .write_contrasts import HERE


TOKENIZER = HERE / "tokenizer"


def keep_tokenizer() -> list[Path]:
    """The base's tokenizer, its JSON without the line breaks that make it half as long again."""
    TOKENIZER.mkdir(exist_ok=True)
    paths = [Path(smollm2(), name) for name in TOKENIZER_FILES]
    for path in filter(Path.is_file, paths):
        text = path.read_text(encoding="utf-8")
        if path.name == "tokenizer.json":
            text = json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")) + "\n"
        write_text(TOKENIZER / path.name, text)
    return sorted(TOKENIZER.iterdir())


def keep_repo(made: Path, kept: Path, tokenizer: list[Path]) -> Path:
    """Copy what a repo of kilobytes holds.

    Raises:
        ValueError: if no strength was chosen, or the steering failed a check.
    """
    repo = SteeredRepo.open(made)
    if not repo.is_measured or repo.sweep["why"] or repo.failed_checks:
        why = repo.sweep["why"] or ", ".join(repo.failed_checks) or "not measured"
        raise ValueError(f"{made}: is not kept: {why}")
    shutil.rmtree(kept, ignore_errors=True)
    (kept / "figures").mkdir(parents=True)
    for name in ("config.json", "generation_config.json", repo.default.file, "README.md", *RECORDS):
        shutil.copyfile(made / name, kept / name)
    for figure in (made / "figures").glob("*.png"):
        shutil.copyfile(figure, kept / "figures" / figure.name)
    for path in (*(ROOT / name for name in CODE), *tokenizer):
        (kept / path.name).symlink_to(os.path.relpath(path, kept))
    change_fields(kept, base_model_name_or_path=ORIGINAL)
    renew_card(kept)
    return kept


if __name__ == "__main__":
    tokenizer = keep_tokenizer()
    for name in SENTENCES:
        print(keep_repo(Path(sys.argv[1], name), HERE / name, tokenizer))
