"""`python -m iti_llama.toolkit.cli`"""

from .app import main


main()
