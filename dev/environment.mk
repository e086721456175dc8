# What reaches a target of the caller's environment. The Makefile removes every other variable before it starts anything;
# dev/environment.py gives processes those of PROCESS only. The home folder has its list in dev/launch.sh.
PROCESS := PATH HOME TMPDIR TERM JAVA_HOME
# To reach package indexes and Keras' weights.
PROXIES := HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy https_proxy all_proxy SSL_CERT_FILE SSL_CERT_DIR \
	PIP_CERT PIP_CLIENT_CERT PIP_CONFIG_FILE PIP_DEFAULT_TIMEOUT PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_INDEX_URL \
	PIP_KEYRING_PROVIDER PIP_NO_INDEX PIP_PROXY PIP_TRUSTED_HOST \
	UV_CACHE_DIR UV_CONFIG_FILE UV_DEFAULT_INDEX UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_HTTP_TIMEOUT UV_INDEX UV_INDEX_% \
	UV_INSECURE_HOST UV_KEYRING_PROVIDER UV_LINK_MODE UV_NATIVE_TLS UV_NO_INDEX UV_OFFLINE UV_PYTHON_INSTALL_DIR \
	UV_PYTHON_INSTALL_MIRROR UV_PYTHON_PREFERENCE UV_SYSTEM_CERTS \
	NODE_EXTRA_CA_CERTS NPM_CONFIG_% npm_config_%
# Targets on a real account or in containers, and what they take besides.
ACCOUNT_TARGETS := recognise forecast prices share export-image deploy preflight first-night verify environment notebook-cluster destroy
ACCOUNT := AWS_% FRUITS_% USER
STACK_TARGETS := up trigger down test-compose test-week
STACK := $(ACCOUNT) DOCKER_% COMPOSE_% BUILDX_% BUILDKIT_% XDG_RUNTIME_DIR SSH_AUTH_SOCK AIRFLOW_PORT UP_SECONDS \
	POSTGRES_PASSWORD AIRFLOW_%_KEY AIRFLOW_%_SECRET AIRFLOW_%_PASSWORD LOCAL_AWS_%
# Where tests and measurements find advisories, photos, weights and a browser.
TEST_TARGETS := test test-% faults attacks bench presentation presentation-data lint
TEST := REQUESTS_CA_BUNDLE CURL_CA_BUNDLE FRUITS_SHARED FRUITS_CHROMIUM FAULTS_% NO_ENGINE PYTEST_ADDOPTS SEED CI
