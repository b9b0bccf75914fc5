# Two commands do everything: `make run` (the service) and `make test` (its tests; `make test-all` adds real servers).
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
export VENV
export CAPTIONER_DATA_DIR ?= $(CURDIR)/var
# A captioner of the Hugging Face hub: MODEL=owner/name make run
ifdef MODEL
export CAPTIONER_MODEL := $(MODEL)
endif

.PHONY: run install test test-servers test-all bench experiment rehearsal check check-deploy format

run: install
	@exec $(BIN)/python deploy/run.py

install: $(VENV)/.installed

# What any machine can run: the unit tests, and the browser's where there is Chromium.
test: $(VENV)/.installed-tests
	$(BIN)/pytest -m "not stack" -n 2 --dist loadfile $(ARGS)

# On real servers, small benchmarks included; .ci/run names the packages. One after the other: they load all cores.
test-servers: $(VENV)/.installed-tests
	$(BIN)/pytest -m stack $(ARGS)

test-all: test test-servers

# The service beside a bare loop and other servers.
bench: $(VENV)/.installed-tests
	@$(BIN)/python manage.py migrate --verbosity 0
	$(BIN)/python -m tests.benchmarks.speed $(ARGS)

# What simulated users teach: training/EXPERIMENTS.md. ARGS="e1 --data DATA --folder FOLDER"
experiment: $(VENV)/.installed-tests
	$(BIN)/python -m tests.benchmarks.experiments $(ARGS)

# From nothing to learning on real servers: needs PostgreSQL's and Redis's programs. ARGS="--data DATA" for real photos.
rehearsal: $(VENV)/.installed-tests
	$(BIN)/python -m tests.benchmarks.rehearsal $(ARGS)

# Lint, types, and Django's own checks on production settings.
check: $(VENV)/.installed-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/python manage.py makemigrations --check --dry-run
	CAPTIONER_PRODUCTION=true SECRET_KEY="$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(50))')" \
	ALLOWED_HOSTS=captions.example.org DATABASE_URL=postgres://captioner@localhost/captioner \
	REDIS_URL=redis://localhost:6379/0 $(BIN)/python manage.py check --deploy --fail-level WARNING

# The files of deploy/: nginx, compose, Dockerfile, Kubernetes, alerts, scripts. Needs their tools; see deploy/check.
check-deploy: $(VENV)/.installed-tests
	BIN=$(BIN) deploy/check

format: $(VENV)/.installed-tests
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Captioner needs Python 3.11 or newer; run make PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing requirements (the first time takes a few minutes) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-tests: $(VENV)/.installed tests/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@
