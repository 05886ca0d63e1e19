# Two doors that need nothing but Python 3.11 or newer: `make demo`, `make test`.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
WHEEL := .wheel
TPU := $(VENV)/tpu
TORCH := $(VENV)/torch

.PHONY: demo test lint wheel bench faults tpu-compile clean

# For steps on a CPU: XLA's fast preset compiles about three times faster.
ON_CPU := XLA_FLAGS="--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE $(XLA_FLAGS)"

demo: $(VENV)/.run
	$(ON_CPU) \
	$(RUN) main.py --config=configs/demo.py --workdir=runs/demo
	rm -rf runs/demo/predicted
	$(ON_CPU) \
	$(RUN) -m tokenpose_jax predict data/synthetic/test/00050000000?.jpg --weights=runs/demo \
	  --boxes=data/synthetic/person_detection_results/detections_test.json \
	  --min-box-score=0.5 --out=runs/demo/predicted
	@echo
	@echo "Drawn: runs/demo/predicted/drawn; where its figures are:"
	@echo "Report: runs/demo/eval/*/report.html; curves: $(VENV)/bin/tensorboard --logdir=runs/demo"
	@echo "On your own photo (a person each, or --box=X,Y,W,H, or --detector=FILE.onnx):"
	@echo "  $(RUN) -m tokenpose_jax predict PHOTO.jpg --weights=runs/demo --out=found"
	@echo "Next, the same model with the boxes of a (simulated) detector:"
	@echo "  $(RUN) main.py --config=configs/demo.py --workdir=runs/demo --mode=evaluate --config.eval.boxes=data/synthetic/person_detection_results/detections_test.json"

test: $(VENV)/.dev
	$(RUN) -m pytest -n 2 $(PYTEST_ARGS)

# The wheel, installed into an empty environment and used from an empty folder.
wheel: $(VENV)/.dev
	rm -rf $(WHEEL) && mkdir -p $(WHEEL)/empty
	$(RUN) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(WHEEL) .
	rm -rf build tokenpose_jax.egg-info
	$(PYTHON) -m venv $(WHEEL)/venv
	$(WHEEL)/venv/bin/python -m pip install --quiet --disable-pip-version-check \
	  $(WHEEL)/*.whl -c constraints.txt
	cd $(WHEEL)/empty && ../venv/bin/python -I $(CURDIR)/tests/installed.py ../venv/bin/tokenpose

# Speed and memory, into docs/benchmarks.md: half an hour.
# A part of it: BENCH_ARGS="--only=speed --speed=--networks=tokenpose_t".
bench: $(VENV)/.dev
	-@$(MAKE) --no-print-directory $(TORCH)/.torch
	$(RUN) -m benchmarks $(BENCH_ARGS)

# Whole runs that are stopped, killed and damaged: hours, not a part of the tests.
faults: $(VENV)/.run
	$(RUN) -m faults.signals
	$(RUN) -m faults.partners
	$(RUN) -m faults.damage
	$(RUN) -m faults.data
	$(RUN) -m faults.long

# What the training steps cost on TPUs, from their compiler; no TPU is needed.
# All of it takes hours: TPU_ARGS="--configs=tokenpose_t --topologies=v5e:2x4".
tpu-compile: $(TPU)/.tpu
	mkdir -p runs
	$(TPU)/bin/python -m benchmarks.tpu_compile --out=runs/tpu.json $(TPU_ARGS)

lint: $(VENV)/.dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; give another: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt constraints.txt | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	@touch $@

$(VENV)/.dev: requirements.txt requirements-dev.txt requirements-export.txt constraints.txt | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check \
	  -r requirements.txt -r requirements-dev.txt -c constraints.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps \
	  -r requirements-export.txt
	@touch $@

# A place of its own: nothing else here is to meet libtpu.
$(TPU)/.tpu: requirements.txt requirements-tpu.txt constraints.txt
	$(PYTHON) -m venv $(TPU)
	$(TPU)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r requirements.txt -r requirements-tpu.txt -c constraints.txt
	@touch $@

# Where it cannot be installed, `make bench` says so and goes on.
$(TORCH)/.torch: requirements-bench.txt | $(VENV)/bin/python
	$(PYTHON) -m venv $(TORCH)
	$(TORCH)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r requirements-bench.txt
	@touch $@

clean:
	rm -rf $(VENV) $(WHEEL) .mypy_cache .pytest_cache .ruff_cache
