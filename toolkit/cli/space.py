"""`iti-llama space`"""

from dataclasses import replace
from typing import Annotated

import typer

from .expand_settings import expand_settings
from .options import AnyStrength, SteeredModel, console


@expand_settings()
def space(
    steered: SteeredModel,
    host: Annotated[str, typer.Option(help="address to serve on; 0.0.0.0 for every network")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="by default the first free port from 7860 on")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="largest number of tokens in an answer")] = 120,
    a_minute: Annotated[int, typer.Option(min=1, help="calls that one address may make in a minute")] = 30,
    any_strength: AnyStrength = False,
) -> None:
    """Open a page in the browser.

    Example: iti-llama space --repo REPO

    It answers a prompt at minus alpha, 0 and alpha, side by side.
    """
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise ValueError("the page needs gradio: pip install 'iti-llama[space]'") from None

    from ..space.build_page import page_of
    from ..space.page import Limits

    model, tokenizer = steered.load()
    limits = Limits(max_new_tokens=max_new_tokens, a_minute=a_minute)
    limits = replace(limits, any_strength=True) if any_strength else limits
    page = page_of(steered.repo, model, tokenizer, limits)
    console.print(f"serving {model.name_or_path}; Ctrl-C ends it", highlight=False)
    page.launch(host, port)
