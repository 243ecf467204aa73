"""`iti-llama space`"""

from typing import Annotated

import typer

from .expand_settings import expand_settings
from .options import SteeredModel, console


@expand_settings()
def space(
    steered: SteeredModel,
    host: Annotated[str, typer.Option(help="address to serve on; 0.0.0.0 for every network")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="by default the first free port from 7860 on")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="most tokens of an answer")] = 120,
    a_minute: Annotated[int, typer.Option(min=1, help="calls that one address may make in a minute")] = 30,
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
    page = page_of(steered.repo, model, tokenizer, Limits(max_new_tokens=max_new_tokens, a_minute=a_minute))
    console.print(f"serving {model.name_or_path}; Ctrl-C ends it", highlight=False)
    page.launch(host, port)
