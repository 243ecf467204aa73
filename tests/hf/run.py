"""Run transformers' own ModelTesterMixin against the classes of this repo.

The mixin is in the source distribution of transformers, not in its wheel. It is fetched from the package index at the
installed version, unpacked into a temporary folder, and never becomes part of this repo. Three of its imports are not
in the source distribution; they get empty stand-ins (export and generation tests, extra configuration fields).
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path


HERE = Path(__file__).parent
STAND_INS = {
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    "distributed_testing_utils.py": "def run_distributed(*args, **kwargs):\n    raise NotImplementedError\n",
}


def main() -> int:
    name = f"transformers-{version('transformers')}"
    with tempfile.TemporaryDirectory() as folder:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        download += ["--no-build-isolation", "--dest", folder, name.replace("-", "==", 1)]
        if subprocess.run(download).returncode:
            print(f"{name}: the package index does not serve its source distribution, so its tests cannot run")
            return 1
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
        root = Path(folder, name)
        shutil.rmtree(root / "src")  # the installed transformers is what is tested
        for path, text in STAND_INS.items():
            target = root / "tests" / path
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                for package in (target.parent, root / "tests"):
                    (package / "__init__.py").touch()
                target.write_text(text)
        model_tests = root / "tests" / "models" / "iti_llama"
        model_tests.mkdir(parents=True)
        for package in (model_tests, model_tests.parent):
            (package / "__init__.py").touch()
        shutil.copy(HERE / "modeling_tests.py", model_tests / "test_modeling_iti_llama.py")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(model_tests), *sys.argv[1:]]
        return subprocess.run(command, cwd=root, env=os.environ | {"HF_HUB_OFFLINE": "1"}).returncode


if __name__ == "__main__":
    sys.exit(main())
