"""transformers' own server, with a steered model: it loads the classes that transformers exports, and ours are not
among them until they are put there."""

import sys
from collections.abc import Sequence


def serve(repo: str, options: Sequence[str]) -> None:
    """Run `transformers serve REPO OPTIONS`, which answers until it is stopped.

    Raises:
        ValueError: where this transformers has no server (4), or its extra is not installed.
    """
    import transformers

    import iti_llama

    try:
        from transformers.cli.transformers import main
    except ImportError:
        raise ValueError(
            f"transformers {transformers.__version__} has no such server, or it is not installed: "
            '`pip install "transformers[serving]>=5"`'
        ) from None
    iti_llama.register()
    for name in ("ITILlamaForCausalLM", "ITILlamaModel"):
        setattr(transformers, name, getattr(iti_llama, name))
    sys.argv = ["transformers", "serve", repo, *options]
    main()
