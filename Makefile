# Everything a person types. `make help` lists it. Needs Python >= 3.11, g++, make, perl and git; the rest comes from PyPI.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
EXTRAS := test,report,docs,formal,native
BUILD  := build

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo attack soak axi-soak gemm-soak bench-fast bench-mem bench-npu bench-share bench-sim fpga wave verilog test test-fast formal mutants lint format regs docs clean distclean

help: ## list the targets
	@echo "FlexServe: recallable isolation for on-device language models, simulated cycle by cycle."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  Python is '$(PYTHON)'; choose another with PYTHON=... . Outputs go to $(BUILD)/."

setup: $(STAMP) ## create .venv with everything in it (all other targets do this by themselves)

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 found: install one or pass PYTHON=/path/to/python3." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "Python cannot make a virtual environment: install its venv package (Debian: python3-venv)." >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(STAMP) ## run the embedded model in all four designs on the RTL; results and report in build/demo/
	@mkdir -p $(BUILD)/demo
	$(BIN)/flexserve run --json $(BUILD)/demo/run.json --trace $(BUILD)/demo/trace.json --report $(BUILD)/demo/report.html

attack: $(STAMP) ## run every attack, and each again with protection off, on the RTL; results in build/attack/
	@mkdir -p $(BUILD)/attack
	$(BIN)/flexserve attack --json $(BUILD)/attack/attack.json

soak: $(STAMP) ## put the filter under ten million random transactions, checked by the golden model; goes on where it was
	$(BIN)/flexserve soak --output $(BUILD)/soak

bench-fast: $(STAMP) ## hold the transaction-level machine beside the RTL; results in build/bench/fast.json
	@mkdir -p $(BUILD)/bench
	$(BIN)/flexserve bench fast --json $(BUILD)/bench/fast.json

bench-mem: $(STAMP) ## measure what the filter costs, each figure beside its limit; results in build/bench/mem.json
	@mkdir -p $(BUILD)/bench
	$(BIN)/flexserve bench mem --json $(BUILD)/bench/mem.json

bench-sim: $(STAMP) ## measure the speed of simulation beside a bare C++ loop and stock cocotb; results in build/bench/
	@mkdir -p $(BUILD)/bench
	$(BIN)/flexserve bench sim --json $(BUILD)/bench/sim.json --report $(BUILD)/bench/sim.html

bench-share: $(STAMP) ## measure how the NPU changes hands and how two worlds share it; results in build/bench/share.json
	@mkdir -p $(BUILD)/bench
	$(BIN)/flexserve bench share --json $(BUILD)/bench/share.json

bench-npu: $(STAMP) ## measure what the NPU does, each figure beside its limit; results and report in build/bench/
	@mkdir -p $(BUILD)/bench
	$(BIN)/flexserve bench npu --json $(BUILD)/bench/npu.json --report $(BUILD)/bench/npu.html

gemm-soak: $(STAMP) ## run a thousand random GEMMs, random lists and every fault on NPUs of all sizes, bit by bit (minutes)
	@mkdir -p $(BUILD)/bench
	$(BIN)/flexserve bench gemms --count 1000 --json $(BUILD)/bench/gemms.json

fpga: $(STAMP) ## what filter and NPU cost in an ECP5-85 (installs extra fpga; tens of minutes); results in build/fpga/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS),fpga]'
	@mkdir -p $(BUILD)/fpga
	$(BIN)/flexserve bench fpga --json $(BUILD)/fpga/fpga.json

axi-soak: $(STAMP) ## put 100,000 bursts of cocotbext-axi through the filter, under Verilator and under Icarus if it is there
	FLEXSERVE_BURSTS=100000 $(BIN)/python -m pytest -q tests/cosim/test_axi_soak.py

wave: $(STAMP) ## record a waveform of a short run with a GTKWave layout in build/wave/
	@mkdir -p $(BUILD)/wave
	$(BIN)/flexserve wave --output $(BUILD)/wave

verilog: $(STAMP) ## write the SoC and each IP as Verilog, with port maps and probe lists, to build/verilog/
	$(BIN)/flexserve verilog --output $(BUILD)/verilog

test: $(STAMP) ## run all tests, two at a time
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup

test-fast: $(STAMP) ## run the tests that need no RTL simulator
	$(BIN)/python -m pytest -q -n 2 tests/hw tests/sw tests/attacks -m "not rtl"

mutants: $(STAMP) ## change filter and gate in 327 places, one at a time; tests and proofs must notice; build/mutants/
	$(BIN)/python -m tests.mutants.run

formal: $(STAMP) ## prove the filter's and the gate's properties; results in build/formal/
	$(BIN)/python -m tests.formal.runner

lint: $(STAMP) ## check style (ruff) and types (mypy --strict)
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff mend what it can
	$(BIN)/ruff check --fix .

regs: $(STAMP) ## write sw/flexserve_sw/regs.py anew from the SystemRDL sources
	$(BIN)/python -c "from pathlib import Path; from flexserve_hw.regs.python_export import render; \
		Path('sw/flexserve_sw/regs.py').write_text(render())"

docs: $(STAMP) ## renew the generated pages of docs/, write the HTML register reference and the C header to build/docs/
	$(BIN)/python docs/testplan/render.py
	$(BIN)/python docs/render_registers.py
	$(BIN)/python docs/render_attacks.py
	$(BIN)/python -m docs.render_security
	$(BIN)/python -m docs.timing.render
	$(BIN)/python -c "from pathlib import Path; from flexserve_hw.regs import reference; \
		Path('$(BUILD)/docs').mkdir(parents=True, exist_ok=True); \
		reference.write_html(Path('$(BUILD)/docs/registers')); \
		reference.write_c_header(Path('$(BUILD)/docs/flexserve.h'))"

clean: ## remove build/ (results, simulator builds)
	rm -rf $(BUILD) .pytest_cache .mypy_cache .ruff_cache .hypothesis

distclean: clean ## remove build/ and .venv/
	rm -rf $(VENV)
