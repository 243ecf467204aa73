"""`iti-llama space`"""

from typing import Annotated

import typer

from ..foundation.package import ROOT
from .options import DeviceMap, Dtype, RemoteCode, Repo, Revision, console, load


def space(
    repo: Repo = str(ROOT),
    host: Annotated[str, typer.Option(help="address to serve on; 0.0.0.0 for every network")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="the first free one from 7860 on by default")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="of an answer")] = 120,
    a_minute: Annotated[int, typer.Option(min=1, help="answers that one address gets in a minute")] = 30,
    revision: Revision = None,
    device_map: DeviceMap = "auto",
    dtype: Dtype = "auto",
    trust_remote_code: RemoteCode = False,
) -> None:
    """A page in the browser: a prompt at minus alpha, 0 and alpha, side by side."""
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise ValueError("the page needs gradio: pip install 'iti-llama[space]'") from None

    from ..space.build_page import page_of
    from ..space.page import Limits

    model, tokenizer = load(repo, revision, trust_remote_code, device_map, dtype)
    page = page_of(repo, model, tokenizer, Limits(max_new_tokens=max_new_tokens, a_minute=a_minute))
    console.print(f"serving {model.name_or_path}; Ctrl-C ends it", highlight=False)
    page.launch(host, port)
