# Fruits!: `make` shows what there is. Everything sets itself up on the first call.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

$(if $(findstring e,$(firstword -$(MAKEFLAGS))),$(error make -e lets any variable of the caller replace one of this Makefile: call it without -e, also in MAKEFLAGS))

# —— What comes in: the variables of dev/environment.mk, and the parameters that a target's line below names ——————
include dev/environment.mk
# Not bash, which reads BASH_ENV, before the variables are removed.
SHELL := /bin/sh
PARAMETERS_OF_TARGETS := $(filter-out AWS_PROFILE,$(shell command sed -n 's/^[a-z-]*:.*\#\# //p' Makefile | command grep -oE '[A-Z][A-Z_]*=' | command tr -d =))
JAVA_IS_GONE := $(shell test -x "$$(command cat .cache/ready/java_home 2> /dev/null)/bin/java" || echo 1)
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
COMES_IN := $(PROCESS) $(PROXIES) $(PARAMETERS_OF_TARGETS) $(if $(filter $(ACCOUNT_TARGETS),$(MAKECMDGOALS)),$(ACCOUNT)) \
	$(if $(filter $(STACK_TARGETS),$(MAKECMDGOALS)),$(STACK)) $(if $(filter $(TEST_TARGETS),$(MAKECMDGOALS)),$(TEST))
$(foreach name,$(filter-out $(COMES_IN) MAKE%,$(.VARIABLES)),$(if $(filter environment,$(firstword $(origin $(name)))),$(eval unexport $(name))))
# A variable of the command line that no target reads (`make demo images=folder`) would be ignored without a word.
$(foreach name,$(filter-out $(COMES_IN) $(STACK) $(TEST),$(.VARIABLES)),$(if $(filter command,$(firstword $(origin $(name)))),\
	$(error $(name)= is no variable of this Makefile; "make help" lists them, in capitals)))
# A value is data: make expands no `$` in it, and recipes read it as "$$KEY", never as $(KEY).
$(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(eval override $(name) := $$(value $(name)))$(eval export $(name))))
# A switch is on with any value but these, so that `make destroy YES=0` still asks.
$(foreach name,FORCE KEEP QUICK PUBLISH WAIT LEARN UPLOAD YES DESTROY REPAIR,$(if $(filter 0 no No NO false False FALSE off Off OFF,$(value $(name))),\
	$(eval override $(name) :=)$(eval export $(name))))
# Java takes the encoding of file names from the locale.
export LC_ALL := C.UTF-8
export PYTHONUNBUFFERED := 1
# Package indexes may be behind a proxy, the servers of this machine are not.
export NO_PROXY := $(no_proxy),$(NO_PROXY),127.0.0.1,localhost,::1
export no_proxy := $(NO_PROXY)

UV := .cache/uv/bin/uv
AIRFLOW := .venv-airflow/bin
SPARK := .venv-spark/bin
NODE := .venv-node/bin
NPM := .venv-lint/bin/npm --prefix requirements/lint --cache .cache/npm --loglevel error
READY := .cache/ready
JAVA_HOME_FILE := $(READY)/java_home
# On this clone's Java, with a home folder of its own.
LAUNCH := exec dev/launch.sh
# uv looks at the package index the machine is set up with; the locks name none.
export UV_PYTHON_PREFERENCE ?= system

## —— See it work ————————————————————————————————————————————————————————

# What a cluster of the AWS emulator is: `local` (each step is one process) or `yarn` (daemons of YARN, real executors).
$(if $(filter demo aws,$(MAKECMDGOALS)),$(if $(filter-out local yarn,$(CLUSTER)),$(error CLUSTER=$(CLUSTER) is no kind of cluster: choose local or yarn)))
YARN_IF_ASKED := $(if $(filter yarn,$(CLUSTER)),$(READY)/yarn_jars)

.PHONY: demo
demo: setup $(YARN_IF_ASKED) ## The whole pipeline on this machine (IMAGES=folder WEIGHTS=file.h5 NETWORK=MobileNetV2 VARIANCE=0.95 K= ENGINE= REGION= LIMIT= CLUSTER=yarn KEEP=1 AIRFLOW_PORT= AWS_PORT=)
	@PYTHONPATH=plugins $(LAUNCH) $(AIRFLOW)/python -m dev.demo

.PHONY: local
local: setup ## The Spark jobs alone over a folder, no Airflow, no endpoint (IMAGES=folder WEIGHTS= NETWORK= VARIANCE= K= OUT=build/local FORCE=1 MAX_BYTES= MAX_PIXELS=)
	@: "$${IMAGES:?say which folder: make local IMAGES=folder}"; \
	$(LAUNCH) $(SPARK)/python dev/run_local.py --images="$$IMAGES" --out="$${OUT:-build/local}" $${WEIGHTS:+--weights="$$WEIGHTS"} \
		$${NETWORK:+--network="$$NETWORK"} $${VARIANCE:+--variance="$$VARIANCE"} $${K:+--k="$$K"} $${FORCE:+--force} \
		$${MAX_BYTES:+--max-bytes="$$MAX_BYTES"} $${MAX_PIXELS:+--max-pixels="$$MAX_PIXELS"}

.PHONY: recognise
recognise: $(READY)/spark ## The name of your photo and the five that look most like it, in build/recognise.png too (PHOTO=me.jpg LAKE=build/demo FORMAT=json)
	@PYTHONPATH=.:spark_jobs exec $(SPARK)/python -m fruits_lake --lake="$${LAKE:-build/demo}" --format="$${FORMAT:-table}" \
		--picture=build/recognise.png -- "$${PHOTO:?say which: make recognise PHOTO=me.jpg}"

.PHONY: model
model: setup ## Convert the weights of a network once into the flatbuffer that is broadcast (WEIGHTS=file.h5 NETWORK=MobileNetV2)
	@$(LAUNCH) $(SPARK)/python dev/make_model.py $${WEIGHTS:+--weights="$$WEIGHTS"} $${NETWORK:+--network="$$NETWORK"}

.PHONY: aws
aws: setup $(YARN_IF_ASKED) ## The AWS emulator alone, for development, until Ctrl-C (PORT=5600 CLUSTER=yarn)
	@port="$${PORT:-5600}"; echo 'unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_PROFILE'; \
	printf 'export %s\n' AWS_ENDPOINT_URL=http://127.0.0.1:$$port AWS_SHARED_CREDENTIALS_FILE="$$PWD/build/aws/credentials" \
		AWS_REGION=eu-west-1 AWS_DEFAULT_REGION=eu-west-1; \
	$(LAUNCH) $(AIRFLOW)/python -m local_aws --port="$$port" --java-home="$$(cat $(JAVA_HOME_FILE))" $(if $(YARN_IF_ASKED),--master=yarn)

## —— Measure it ———————————————————————————————————————————————————————————

.PHONY: bench
bench: setup $(READY)/bench ## Our jobs beside their peers: build/bench/ (QUICK=1: under ten minutes; PUBLISH=1: into bench/README.md)
	@$(LAUNCH) .venv-bench/bin/python -m bench $${QUICK:+--sizes quick} $${PUBLISH:+--publish}
	@$(if $(PUBLISH),$(AIRFLOW)/python docs/scale/write_scale.py)

.PHONY: test-bench
test-bench: setup $(READY)/bench ## The benchmark itself, on eight photos (slow, not in make test)
	.venv-bench/bin/python -m pytest tests/bench

.PHONY: robustness
robustness: $(READY)/spark $(READY)/airflow ## How well photos held out of a lake are named once altered: build/robustness/ (LAKE=build/demo PUBLISH=1: into docs/)
	@export LAKE="$${LAKE:-build/demo}"; PYTHONPATH=.:spark_jobs $(SPARK)/python -m dev.robustness.measure; \
	PYTHONPATH=.:plugins $(AIRFLOW)/python -m dev.robustness.write
	@$(if $(PUBLISH),cp build/robustness/robustness.* docs/)

## —— A team's Airflow, in containers ————————————————————————————————————

.PHONY: up
up: ## Airflow beside the AWS emulator, until make down (IMAGES=folder WEIGHTS=file.h5; AWS_PROFILE=name for a real account)
	@compose/stack.sh up

.PHONY: trigger
trigger: ## A demo run in it (PARAMETERS="limit=50 variance=0.9" WAIT=1)
	@set -f; compose/stack.sh trigger $${WAIT:+--wait} $${PARAMETERS-}

.PHONY: down
down: ## End it; Airflow's history stays
	@compose/stack.sh down

.PHONY: test-compose
test-compose: $(READY)/airflow ## The stacks of two clones, from build to a run and back, on the Docker engine here or one of its own
	compose/engine.sh $(AIRFLOW)/python -m pytest tests/compose -m "not slow"

.PHONY: test-week
test-week: $(READY)/airflow ## The same over a week: backfill, changed secrets, killed services (half an hour)
	compose/engine.sh $(AIRFLOW)/python -m pytest tests/compose

## —— Read it ———————————————————————————————————————————————————————————————

.PHONY: docs
docs: setup ## The pages that the code writes: docs/commands.md, dags.md, data_dictionary.md, map.md, settings.md
	$(AIRFLOW)/python dev/write_docs.py

.PHONY: site
site: $(READY)/docs ## The documentation as a site, with search: build/site/
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	@echo "build/site: python3 -m http.server --bind 127.0.0.1 --directory build/site shows it on http://127.0.0.1:8000"

.PHONY: notebook
notebook: setup $(READY)/notebook ## Run the notebook from its first cell: build/notebook/ (IMAGES=folder WEIGHTS=file.h5 MY_PHOTO= PUBLISH=1)
	@$(LAUNCH) dev/notebook.sh run

.PHONY: notebook-lab
notebook-lab: setup $(READY)/notebook ## Open the notebook in JupyterLab, to run it cell by cell (IMAGES=folder WEIGHTS=file.h5)
	@$(LAUNCH) dev/notebook.sh lab

.PHONY: presentation
presentation: $(READY)/docs ## The slides as PDF, in French and English: build/presentation/
	@.venv-docs/bin/python dev/presentation/build.py

.PHONY: presentation-data
presentation-data: setup ## Run the demo anew for the slides' figures (IMAGES=folder WEIGHTS=file.h5)
	@$(LAUNCH) $(AIRFLOW)/python -m dev.presentation.take_run

## —— Answer for it —————————————————————————————————————————————————————————

OPS := PYTHONPATH=plugins exec $(AIRFLOW)/python -m ops
.PHONY: forecast
forecast: $(READY)/airflow ## What new images would cost, by profile and region (IMAGES=1000000 FORMAT=json LEARN=1)
	@$(OPS) forecast --images="$${IMAGES:?say how many: make forecast IMAGES=1000000}" --format="$${FORMAT:-table}" $${LEARN:+--learn}

.PHONY: prices
prices: $(READY)/airflow ## Read include/prices.yaml anew from AWS (REGIONS="eu-west-1" TYPES="m7g.xlarge" EUR_PER_USD=0.9)
	@set -f; $(OPS) prices $${REGIONS:+--regions $$REGIONS} $${TYPES:+--types $$TYPES} $${EUR_PER_USD:+--eur-per-usd="$$EUR_PER_USD"}

.PHONY: share
share: $(READY)/airflow ## Expiring links to report, PCA and PDF of a run (RUN=scheduled__… HOURS=24)
	@$(OPS) share --run="$${RUN:?say which: make share RUN=scheduled__…}" --hours="$${HOURS:-24}"

.PHONY: export-image
export-image: $(READY)/airflow ## All that is kept about one photo: build/exports/ (KEY=images/…/me.jpg or ID=…)
	@$(OPS) export-image $${KEY:+--key="$$KEY"} $${ID:+--id="$$ID"}

.PHONY: sbom
sbom: $(READY)/sbom $(READY)/lint ## What each environment holds, as CycloneDX, from the locks: build/sbom/ (the jars' checksums: dev/fetch_jars.py)
	@mkdir -p build/sbom; for lock in requirements/*.lock; do \
		.venv-sbom/bin/cyclonedx-py requirements --output-reproducible --short-PURLs --validate \
			-o "build/sbom/$$(basename "$$lock" .lock).cdx.json" "$$lock"; done
	@$(NPM) sbom --sbom-format cyclonedx --package-lock-only > build/sbom/lint.npm.cdx.json

## —— A real account (credentials as boto3 finds them: AWS_PROFILE=name) ——————————

STACK_PARAMETERS := $${PARAMETERS:+$$(printf -- '--parameter=%s ' $$PARAMETERS)}
IN_ACCOUNT := $${DEPLOYMENT_ID:+--deployment-id="$$DEPLOYMENT_ID"} $${REGION:+--region="$$REGION"}

.PHONY: preflight
preflight: $(READY)/airflow ## Could a first night begin? Reads only: 0 yes, 1 something to mend, 2 AWS refused to say (DEPLOYMENT_ID= REGION= PARAMETERS=)
	@set -f; $(OPS) preflight $(IN_ACCOUNT) $(STACK_PARAMETERS)

.PHONY: first-night
first-night: setup $(UV) ## Preflight, deploy, 100 photos, one night, evidence; asks first, below 1 EUR (DEPLOYMENT_ID= REGION= IMAGES= WEIGHTS= PARAMETERS= YES=1 DESTROY=1)
	@set -f; $(OPS) first-night $(IN_ACCOUNT) $(STACK_PARAMETERS) $${YES:+--yes} $${DESTROY:+--destroy}

.PHONY: deploy
deploy: $(READY)/airflow ## include/stack.yaml to AWS: shows what changes, asks (DEPLOYMENT_ID= ALARM_EMAIL= REGION= PARAMETERS="LogDays=30" YES=1)
	@set -f; $(OPS) deploy $(IN_ACCOUNT) $${ALARM_EMAIL:+--alarm-email="$$ALARM_EMAIL"} \
		$(STACK_PARAMETERS) $${YES:+--yes}

.PHONY: verify
verify: $(READY)/airflow ## Look every resource of the stack up and compare it with the template (DEPLOYMENT_ID= REGION=)
	@$(OPS) verify $(IN_ACCOUNT)

.PHONY: environment
environment: $(READY)/airflow $(UV) ## Pack the nodes' libraries (ARCHITECTURE=arm64 UPLOAD=1 DEPLOYMENT_ID= REGION=)
	@$(OPS) environment $(IN_ACCOUNT) $${ARCHITECTURE:+--architecture="$$ARCHITECTURE"} $${UPLOAD:+--upload}

.PHONY: notebook-cluster
notebook-cluster: $(READY)/airflow ## A cluster with Livy and JupyterEnterpriseGateway for two hours (settings as FRUITS_*; REPAIR=1: may write the nights' tables)
	@$(OPS) notebook-cluster $${REPAIR:+--repair}

.PHONY: destroy
destroy: $(READY)/airflow ## Remove a deployment whole, photos and tables too, and show that nothing costs (DEPLOYMENT_ID= REGION= YES=1)
	@$(OPS) destroy $(IN_ACCOUNT) $${YES:+--yes}

## —— Check it ———————————————————————————————————————————————————————————

.PHONY: test
test: lint test-infra test-spark test-airflow test-docs test-faults test-simulation test-attacks test-e2e ## All checks and tests

.PHONY: test-unit
test-unit: setup ## Only the tests of pure code: no JVM, no server (under a minute)
	$(SPARK)/python -m pytest tests/spark_jobs tests/dev --ignore=tests/dev/demo --ignore=tests/dev/presentation --ignore=tests/dev/site -m "not spark and not slow"
	$(AIRFLOW)/python -m pytest tests/dags tests/plugins tests/dev/demo -m "not server and not slow"

.PHONY: test-spark
test-spark: setup ## The jobs and their library, on a real Spark
	JAVA_HOME="$$(cat $(JAVA_HOME_FILE))" $(SPARK)/python -m pytest tests/spark_jobs tests/fruits_lake tests/dev --ignore=tests/dev/demo --ignore=tests/dev/presentation --ignore=tests/dev/site -m "not slow"

.PHONY: test-airflow
test-airflow: setup $(READY)/lint ## DAG, control plane, demo, the AWS emulator over real HTTP, the pages in a real Chromium
	JAVA_HOME="$$(cat $(JAVA_HOME_FILE))" $(AIRFLOW)/python -m pytest tests/dags tests/plugins tests/docs tests/local_aws tests/ops tests/dev/demo tests/browser tests/compose -m "not slow and not e2e" -n 2 --dist loadfile

.PHONY: test-docs
test-docs: setup $(READY)/docs $(READY)/notebook ## The presentation page by page, the site, and the notebook from its first cell
	.venv-docs/bin/python -m pytest tests/dev/presentation tests/dev/site
	JAVA_HOME="$$(cat $(JAVA_HOME_FILE))" .venv-notebook/bin/python -m pytest tests/notebooks

.PHONY: test-infra
test-infra: setup $(READY)/lint $(READY)/docs $(READY)/notebook ## Template, policies, shell scripts, licences and advisories under the tools that know them
	.venv-lint/bin/python -m pytest tests/infra

.PHONY: test-faults
test-faults: setup ## A quick selection of the faults (SEED=1)
	$(AIRFLOW)/python -m pytest tests/faults -m "not slow" -n 2 --dist loadfile

# Two files at once: a test of the control plane waits most of its time.
.PHONY: faults
faults: setup ## Every fault at every moment, with PostgreSQL: docs/reliability.md, build/faults/ (SEED=1)
	@rm -f build/faults/results.json; status=0; \
	$(AIRFLOW)/python -m pytest tests/faults -n 2 --dist loadfile || status=$$?; \
	$(AIRFLOW)/python -m tests.faults.write_page && exit $$status

.PHONY: simulate
simulate: setup ## Nights of the control plane by seed, several faults each: build/faults/simulation.json (NIGHTS=1000 SEED=1)
	@PYTHONPATH=.:plugins $(AIRFLOW)/python -m tests.simulation --nights "$${NIGHTS:-1000}" --seed "$${SEED:-1}"

.PHONY: test-simulation
test-simulation: setup ## Simulated nights of some seeds, and guards taken out
	$(AIRFLOW)/python -m pytest tests/simulation -m "not slow"

.PHONY: test-attacks
test-attacks: setup $(READY)/lint ## A quick selection of the attacks on a deployment
	JAVA_HOME="$$(cat $(JAVA_HOME_FILE))" $(AIRFLOW)/python -m pytest tests/attacks -m "not slow"

.PHONY: attacks
attacks: setup $(READY)/lint ## Every attack, and what held: docs/security.md, build/attacks/
	@JAVA_HOME="$$(cat $(JAVA_HOME_FILE))" compose/engine.sh $(AIRFLOW)/python -m tests.attacks.write_page

.PHONY: test-e2e
test-e2e: setup $(READY)/lint ## make demo on 200 photos, its tables checked by key
	JAVA_HOME="$$(cat $(JAVA_HOME_FILE))" CLUSTER=local $(SPARK)/python -m pytest tests/e2e -m "not slow"

.PHONY: test-yarn
test-yarn: setup $(READY)/lint $(READY)/yarn_jars ## make demo CLUSTER=yarn on 60 photos, its tables checked by key; the daemons' ends (not in make test yet)
	JAVA_HOME="$$(cat $(JAVA_HOME_FILE))" CLUSTER=yarn $(SPARK)/python -m pytest tests/e2e/test_demo.py tests/e2e/test_yarn.py
	$(AIRFLOW)/python -m pytest tests/local_aws/test_yarn_daemons.py

.PHONY: lint
lint: setup types imports ## Formatter, linter, types, who may import whom
	$(AIRFLOW)/ruff format --check .
	$(AIRFLOW)/ruff check .

.PHONY: types
types: setup
	$(AIRFLOW)/mypy plugins/fruits_airflow plugins/run_report.py local_aws dags ops compose dev/demo dev/presentation dev/robustness/write.py dev/write_*.py dev/run_notebook.py
	$(SPARK)/mypy spark_jobs fruits_lake dev/class_archive.py dev/fetch_jars.py dev/local_spark.py dev/make_model.py dev/robustness/measure.py dev/run_local.py dev/typical_job.py

.PHONY: imports
imports: setup
	PYTHONPATH=.:plugins:spark_jobs $(AIRFLOW)/lint-imports

.PHONY: format
format: setup ## Let the formatter and the linter mend what they can
	$(AIRFLOW)/ruff format .
	$(AIRFLOW)/ruff check --fix .

## —— Set-up (called by the others) ——————————————————————————————————————

# First, so that what cannot work here is said before anything is built.
.PHONY: check_machine
check_machine:
	@dev/check_machine.sh

.PHONY: setup
setup: check_machine $(READY)/airflow $(READY)/spark $(READY)/node $(READY)/class_archive $(JAVA_HOME_FILE) ## The environments, the Iceberg jars, a Java, an archive of classes

$(UV): requirements/uv.lock
	@echo "Setting up uv"
	@PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore \
		--only-binary :all: --require-hashes --upgrade --target .cache/uv -r $< \
		|| { echo "ERROR: uv could not be installed: python3 needs pip (Debian: apt-get install python3-pip) and a package index." >&2; exit 1; }
	@touch $@

# A stamp is written last: an interrupted set-up starts that environment anew.
$(READY)/%: requirements/%.lock $(UV) dev/venv.sh
	@dev/venv.sh $(UV) $*
	@mkdir -p $(READY); touch $@

# It pins the PySpark that a node's image brings.
$(READY)/node: requirements/spark.lock

# It has a lock of Node.js packages besides.
$(READY)/lint: requirements/lint/package-lock.json

$(READY)/jars: dev/fetch_jars.py | $(READY)/spark $(JAVA_HOME_FILE)
	@echo "Fetching the Iceberg jars (110 MB, once)"
	@JAVA_HOME="$$(cat $(JAVA_HOME_FILE))" $(SPARK)/python -m dev.fetch_jars
	@touch $@

$(READY)/yarn_jars: requirements/yarn.jars | $(READY)/spark $(JAVA_HOME_FILE)
	@echo "Fetching the jars of Hadoop (43 MB, once)"
	@JAVA_HOME="$$(cat $(JAVA_HOME_FILE))" $(SPARK)/python -m dev.fetch_jars --yarn
	@touch $@

# Touched when Java's build is another one: an upgrade keeps its folder.
.PHONY: java_build
$(READY)/java_build: java_build | $(JAVA_HOME_FILE)
	@"$$(cat $(JAVA_HOME_FILE))/bin/java" -version > $@.new 2>&1
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

# Java compares it with its own build and with the times of the jars: made anew with each of them.
$(READY)/class_archive: dev/class_archive.py dev/typical_job.py $(READY)/jars $(READY)/node $(READY)/java_build
	@echo "Keeping the classes that Spark loads (190 MB, half a minute, once)"
	@JAVA_HOME="$$(cat $(JAVA_HOME_FILE))" $(NODE)/python -m dev.class_archive
	@touch $@

# Made anew when the Java it names has gone.
ifneq ($(JAVA_IS_GONE),)
.PHONY: $(JAVA_HOME_FILE)
endif
$(JAVA_HOME_FILE): dev/java_home.sh requirements/java.lock | $(READY)/spark
	@mkdir -p $(READY)
	@dev/java_home.sh $(UV) $(SPARK)/python > $@.new && mv $@.new $@

.PHONY: lock
lock: $(UV) $(READY)/lint ## Resolve requirements/*.in anew into the lock files
	@for name in uv airflow spark java postgres bench docs notebook lint node sbom; do \
		$(UV) pip compile requirements/$$name.in -o requirements/$$name.lock --universal --python-version 3.11 \
			--generate-hashes --no-header --no-annotate --no-emit-index-url --upgrade -q; done
	@$(NPM) update --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts --no-audit --no-fund

.PHONY: clean
clean: ## Remove what demo and tests built (build/)
	rm -rf build

.PHONY: distclean
distclean: clean ## Remove the environments and caches too
	rm -rf .cache .venv-airflow .venv-spark .venv-node .venv-bench .venv-lint .venv-docs .venv-notebook .venv-sbom

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^## / {print "\n" substr($$0, 4)} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile
