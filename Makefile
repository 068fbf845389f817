.PHONY: help demo dashboard story screenshots release reproduced operators test python overhead schemathesis torture fuzz lint bench

dashboard := sdp-server/dashboard
python := target/python/bin

help: ## What can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

demo: ## Run the whole platform here and put a feature branch behind a gateway (ONCE=1: do it and exit)
	@.ci/setup --best-effort
	cargo run --quiet --package sdp-examples --bin demo -- $(if $(ONCE),--once)

dashboard: $(dashboard)/node_modules/.package-lock.json ## Build the dashboard, for the next build of the server to carry
	cd $(dashboard) && npm run --silent types
	@$(MAKE) --no-print-directory $(dashboard)/dist/index.html
	cd $(dashboard) && npm run --silent budget

$(dashboard)/node_modules/.package-lock.json: $(dashboard)/package-lock.json
	@.ci/setup --node
	cd $(dashboard) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# Not made again while it is the same: the server would be built again with it.
$(dashboard)/dist/index.html: $(shell find $(dashboard)/src $(dashboard)/public $(dashboard)/*.html $(dashboard)/*.json $(dashboard)/*.ts -type f)
	cd $(dashboard) && npm run --silent build

story: dashboard ## Go through every page of the dashboard with a browser, on the real parts
	@.ci/setup --browser
	cargo run --quiet --package sdp-examples --bin playground -- node $(dashboard)/e2e/story.mjs

screenshots: dashboard ## Every page of the dashboard in both themes, into sdp-server/dashboard/screenshots (README=1: the README's)
	@.ci/setup --browser
	cargo run --quiet --package sdp-examples --bin playground -- node $(dashboard)/e2e/screenshots.mjs

release: $(dashboard)/node_modules/.package-lock.json ## What operators install, into target/release-VERSION: static programs, packages, SBOM, checksums
	@.ci/setup --release
	@$(MAKE) --no-print-directory $(dashboard)/dist/index.html
	@.ci/release $(VERSION)

reproduced: ## Build the release once more, in another folder, and compare every byte (long)
	@.ci/reproduced

operators: release ## Rehearse an operator's first years on clean Debian machines without a network (ten minutes and more)
	@.ci/setup --machines
	@.ci/operators

test: dashboard ## Every test, on the real parts
	@.ci/setup
	cd $(dashboard) && npm run --silent test
	cargo test --workspace

# Builds the wheel into the folder $(1), with maturin's options $(2). The client that waits is made from the one for asyncio.
define wheel
rm -rf $(1)
$(python)/python sdp-py/tools/unasync.py
$(python)/maturin build --quiet --locked --manifest-path sdp-py/Cargo.toml --out $(1) $(2)
endef

python: ## The Python package: its wheel in a fresh environment, checked, and tested on the real parts
	@.ci/setup --python
	$(call wheel,target/wheels)
	$(python)/python -m venv --clear target/python-wheel
	target/python-wheel/bin/pip install --quiet --requirement sdp-py/tests/requirements.txt target/wheels/*.whl
	$(python)/ruff format --check sdp-py
	$(python)/ruff check sdp-py
	cd sdp-py && ../target/python-wheel/bin/mypy
	cd sdp-py && ../target/python-wheel/bin/stubtest sdp --allowlist tools/stubtest.txt
	cd sdp-py && ../target/python-wheel/bin/pytest --ignore tests/real
	cargo run --quiet --package sdp-examples --bin playground -- target/python-wheel/bin/pytest sdp-py/tests/real

overhead: ## What a call of the Python package costs more than its HTTP round trip
	@.ci/setup --python
	$(call wheel,target/wheels-release,--release)
	$(python)/python -m venv --clear target/python-release
	target/python-release/bin/pip install --quiet target/wheels-release/*.whl
	target/python-release/bin/python sdp-py/benches/overhead.py

schemathesis: ## Try the API by its own description (EXAMPLES=25 requests for each endpoint and phase)
	@.ci/setup --schemathesis
	cargo run --quiet --package sdp-examples --bin schemathesis -- target/schemathesis/bin/schemathesis \
		--max-examples $(or $(EXAMPLES),25) --seed 1 --no-color

torture: ## Kill the daemons and cut their link in the middle of deployments (TIMES=100 each)
	@.ci/setup --best-effort
	cargo run --quiet --package sdp-examples --bin torture -- $(or $(TIMES),100)

fuzz: ## Fuzz the frame decoder and the log reader (needs a nightly compiler; TIME=60 seconds each)
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	cd sdp-core && cargo +nightly fuzz run frames -- -max_total_time=$(or $(TIME),60)
	cd sdp-core && cargo +nightly fuzz run body -- -max_total_time=$(or $(TIME),60)
	cd sdp-server && cargo +nightly fuzz run event_log -- -max_total_time=$(or $(TIME),60)

lint: dashboard ## Formatting, lints and documentation
	shellcheck --severity warning .ci/* examples/*/bundle examples/*/load examples/*/sdp-install examples/*/rehearse examples/*/build examples/*/enrol examples/*/try */packaging/scripts/*
	cd $(dashboard) && npm run --silent lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

bench: ## The benchmarks, with the peers measured beside us
	@.ci/setup --peers
	PATH="$(CURDIR)/target/peers/bin:$$PATH" cargo bench --package sdp-benches
