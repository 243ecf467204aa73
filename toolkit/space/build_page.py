"""Build the page of a repo from its model, its files, and prompts to start from."""

from pathlib import Path

from huggingface_hub import snapshot_download

from iti_llama import ITILlamaForCausalLM

from ..foundation.files import folder_of
from ..foundation.package import ROOT
from ..foundation.sandbox import Sandbox, SandboxError
from ..measure.bundled_tasks import demo_tasks
from ..repo.steered_repo import SteeredRepo
from .page import Limits, Page
from .steered import Steered


EXAMPLES = 6


def page_of(repo: str, model: ITILlamaForCausalLM, tokenizer, limits: Limits | None = None) -> Page:
    """The page of a folder or Hub repo. The bundled model's prompts have tests; they run only if the sandbox proves
    itself on this machine."""
    folder = folder_of(repo)
    if folder is None:
        kept = ["*.json", "iti_directions*.safetensors", "README.md"]
        folder = Path(snapshot_download(repo, revision=model._iti_revision, allow_patterns=kept))  # the model's commit
    steered_repo, tasks, sandbox = SteeredRepo.open(folder), {}, None
    measured = [example["shown"] for example in steered_repo.evaluation.get("examples", ())]
    held_out = [shown for _, shown in steered_repo.prompts]
    examples = list(dict.fromkeys(held_out or measured))[:EXAMPLES]  # as their writer wrote them
    if folder.resolve() == ROOT:
        tasks = {task.prompt: task for _, task in demo_tasks(EXAMPLES)}
        examples = list(tasks)
        try:
            sandbox = Sandbox()
        except SandboxError:
            sandbox = None
    return Page(Steered(model, tokenizer), steered_repo, examples, tasks, sandbox, limits)
