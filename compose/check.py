"""Check the settings that the services of Airflow will have, before any of them starts; as the task `plan` does."""

import sys

from fruits_airflow.config.errors import FruitsError
from fruits_airflow.config.settings import load_settings

if __name__ == "__main__":
    try:
        load_settings()
    except FruitsError as error:
        print(f"ERROR: {error}")
        sys.exit(1)
