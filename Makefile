# `make sweep` and `make test` are all a new user needs; both make the environment on first use.
#   make sweep ARGS="workload=llama_3_2_1b_prefill search.final_rounds=9"
#   make analyze ARGS="trace=path/to/worker.pt.trace.json.gz"
#   make test ARGS="tests/test_host.py -k deadlock"
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# A Gaudi container brings a torch that is on no package index, and what belongs to it: build on those, and pin exactly
# what is there, so that pip takes it as it is or stops.
GAUDI = $(shell $(PYTHON) -c 'import importlib.util as u; print(u.find_spec("habana_frameworks") and "yes" or "")')
KEPT = import importlib.metadata as m, re; \
	[print(f"{name}=={d.version}") for d in m.distributions() if (name := d.metadata["Name"]) \
	and re.match("(torch|torchvision|torchaudio|numpy|habana.*)$$", name.lower())]
SITE = $(if $(GAUDI),--system-site-packages)
PINS = $(if $(GAUDI),$(VENV)/kept.txt,constraints.txt)

.PHONY: sweep profile analyze tensorboard devices doctor verify report test lint types clean
sweep profile analyze tensorboard devices doctor verify report: $(STAMP)
	@$(BIN)/overlap $@ $(ARGS)

test: $(STAMP)
	@$(BIN)/python -m pytest $(ARGS)

# The stamp is written last, so an environment that was interrupted is made again.
$(STAMP): pyproject.toml constraints.txt
	@echo "making $(VENV) (once, a minute or two)"
	@rm -rf $(VENV)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(SITE) $(VENV)
	@$(if $(GAUDI),$(PYTHON) -c '$(KEPT)' > $(PINS))
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(PINS) --editable '.[tensorboard,joblib,slurm,optuna,transformers,dev]'
	@touch $@

lint: $(STAMP) types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

# mypy wants an installed copy: the folders map to one package only once they are installed.
types: $(STAMP)
	@rm -rf build
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/types .
	@cd build/types && MYPYPATH=. ../../$(BIN)/python -m mypy --config-file ../../pyproject.toml --python-executable ../../$(BIN)/python -p overlap

clean:
	@rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
