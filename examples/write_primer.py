"""Write the questions and answers that TruthfulQA puts before each question, as lm-eval's task has them.

python -m iti_llama.examples.write_primer FILE
"""

import sys
from pathlib import Path

import jinja2
import lm_eval
import yaml

from iti_llama.toolkit.foundation.files import write_text


def primer() -> str:
    """The text before "Q: QUESTION"."""
    task = Path(lm_eval.__file__).parent / "tasks" / "truthfulqa" / "truthfulqa_mc1.yaml"
    template = jinja2.Template(yaml.safe_load(task.read_text(encoding="utf-8"))["doc_to_text"])
    text, mark, _ = template.render(question="QUESTION").rpartition("Q: QUESTION\n")
    if not mark:
        sys.exit(f"{task}: doc_to_text does not end with the question")
    return text.lstrip()


if __name__ == "__main__":
    write_text(Path(sys.argv[1]), primer())
