"""Run examples/quickstart.ipynb and keep what it shows in it.

python -m iti_llama.examples.run_quickstart
"""

import os

import nbclient
import nbformat

from iti_llama.toolkit.foundation.package import ROOT


NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def run_quickstart(notebook):
    """A notebook with its outputs, but without warnings and progress bars. Raises nbclient's error if a cell fails."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    how = {"timeout": 900, "kernel_name": "python3", "record_timing": False, "coalesce_streams": True}
    nbclient.NotebookClient(notebook, resources=resources, **how).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


if __name__ == "__main__":
    notebook = run_quickstart(nbformat.read(NOTEBOOK, as_version=4))
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    nbformat.write(notebook, NOTEBOOK)
    print(NOTEBOOK)
