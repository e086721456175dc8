"""A caller whose environment and home folder are wrong for everything that reads them."""

from __future__ import annotations

import os
from pathlib import Path

NOWHERE = "/nonexistent"
DEAD_PROXY = "http://127.0.0.1:9"
VARIABLES = {
    # Python, pip and uv
    **dict.fromkeys(("PYTHONHOME", "PYTHONUSERBASE", "PYTHONEXECUTABLE", "VIRTUAL_ENV", "CONDA_PREFIX"), NOWHERE),
    **dict.fromkeys(("PYTHONHASHSEED", "PYTHONMALLOC", "PYTHONPLATLIBDIR", "PYTHONCASEOK"), "bogus"),
    **{"PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    **{"PYTHONCOERCECLOCALE": "0", "PYTHONSAFEPATH": "1", "PYTHONDEVMODE": "1", "PYTHONPROFILEIMPORTTIME": "1"},
    **dict.fromkeys(("PIP_TARGET", "PIP_PREFIX", "PIP_CONSTRAINT", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT"), NOWHERE),
    **dict.fromkeys(("PIP_USER", "PIP_REQUIRE_VIRTUALENV", "UV_SYSTEM_PYTHON", "UV_NO_BINARY", "UV_NO_CACHE"), "1"),
    # Java, Spark and Hadoop
    **dict.fromkeys(("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "HADOOP_OPTS"), "-XX:+NoSuchOption"),
    **dict.fromkeys(("SPARK_SUBMIT_OPTS", "SPARK_LAUNCHER_OPTS", "SPARK_DAEMON_JAVA_OPTS"), "-XX:+NoSuchOption"),
    **dict.fromkeys(("CLASSPATH", "JAVA_HOME", "SPARK_HOME", "SPARK_CONF_DIR", "SPARK_LOCAL_DIRS"), NOWHERE),
    **dict.fromkeys(("SPARK_DIST_CLASSPATH", "HADOOP_HOME", "HADOOP_CONF_DIR", "YARN_CONF_DIR"), NOWHERE),
    **dict.fromkeys(("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"), "/bin/false"),
    **dict.fromkeys(("SPARK_DRIVER_MEMORY", "SPARK_EXECUTOR_MEMORY"), "1m"),
    **{"SPARK_LOCAL_IP": "203.0.113.1", "SPARK_REMOTE": "sc://203.0.113.1", "SPARK_TESTING": "1"},
    **{"PYSPARK_SUBMIT_ARGS": "--no-such-option", "PYSPARK_GATEWAY_PORT": "1", "PYSPARK_GATEWAY_SECRET": "x"},
    **{"HADOOP_USER_NAME": "nobody else", "HADOOP_PROXY_USER": "nobody else"},
    # AWS, Airflow and our own settings
    **dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE", "BOTO_CONFIG"), NOWHERE),
    **dict.fromkeys(("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN", "AWS_SESSION_TOKEN"), "no-such"),
    **dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE"), "no-such"),
    **dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_EC2_METADATA_SERVICE_ENDPOINT"), DEAD_PROXY),
    **{"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_USE_FIPS_ENDPOINT": "true"},
    **dict.fromkeys(("AIRFLOW_HOME", "AIRFLOW_CONFIG", "AIRFLOW__CORE__DAGS_FOLDER"), NOWHERE),
    **{"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "bogus://", "AIRFLOW__CORE__EXECUTOR": "NoSuchExecutor"},
    **{"AIRFLOW_CONN_AWS_DEFAULT": "bogus", "FRUITS_REGION": "us-east-1", "FRUITS_NO_SUCH_SETTING": "1"},
    # Locale, proxies and shells
    **{"LANG": "tr_TR.UTF-8", "LC_ALL": "C", "LC_CTYPE": "bogus", "LANGUAGE": "tr", "TZ": "Mars/Olympus"},
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), DEAD_PROXY),
    **{"ALL_PROXY": "socks5://127.0.0.1:9", "all_proxy": "bogus", "NO_PROXY": "", "no_proxy": ""},
    **dict.fromkeys(("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "CDPATH", "NETRC"), NOWHERE),
    **{"SHELLOPTS": "noclobber", "GREP_OPTIONS": "-v", "BASH_FUNC_cat%%": "() { exit 3; }"},
    # The model and the notebook
    **{"KERAS_BACKEND": "jax", "KERAS_HOME": NOWHERE, "MPLBACKEND": "bogus", "MPLCONFIGDIR": NOWHERE},
    **dict.fromkeys(("JUPYTER_PATH", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"), NOWHERE),
}
MODULE = "raise SystemExit('a module of the caller')\n"
FILES = {
    ".aws/config": "[default]\nregion = us-east-1\nendpoint_url = http://127.0.0.1:9\n[broken",
    ".aws/credentials": "[broken",
    ".bashrc": "exit 3\n",
    ".config/matplotlib/matplotlibrc": "backend: bogus\n",
    ".config/pip/pip.conf": "[install]\nuser = true\n",
    ".ipython/profile_default/startup/00.py": MODULE,
    ".ivy2.5.2/ivysettings.xml": "<broken",
    ".jupyter/jupyter_config.py": MODULE,
    ".keras/keras.json": '{"backend": "jax", "floatx": "float16", "image_data_format": "channels_first"}',
    ".local/lib/python3.11/site-packages/usercustomize.py": MODULE,
    ".local/share/jupyter/kernels/python3/kernel.json": '{"argv": ["/bin/false"], "display_name": "x"}',
    ".netrc": "default login x password y\n",
    ".pydistutils.cfg": "[install]\nuser = true\n",
    ".pythonrc": MODULE,
    ".pyrc": MODULE,
    "airflow/airflow.cfg": "[broken",
    "bash_env": "exit 3\n",
    "modules/pyspark/__init__.py": MODULE,
    "modules/sitecustomize.py": MODULE,
    "modules/json.py": MODULE,
}


def environment(home: Path) -> dict[str, str]:
    """Fill `home` with hostile files and return a hostile environment around it; PATH and TERM are the tests' own."""
    for name, text in FILES.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    files = {"PYTHONSTARTUP": ".pyrc", "PYTHONPATH": "modules", "BASH_ENV": "bash_env", "ENV": "bash_env"}
    own = {name: os.environ[name] for name in ("PATH", "TERM") if name in os.environ}
    return own | VARIABLES | {name: str(home / file) for name, file in files.items()} | {"HOME": str(home)}
