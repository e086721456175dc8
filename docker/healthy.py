#!/usr/bin/env python
"""Health check of an Airflow container: `fruits-healthy PART` asks the API server how Airflow itself sees that part.

A part is healthy while its heartbeats arrive; `airflow jobs check` would import Airflow for seconds each time.
"""

import json
import sys
import urllib.request

with urllib.request.urlopen("http://127.0.0.1:8080/api/v2/monitor/health", timeout=8) as reply:
    status = json.load(reply)[sys.argv[1]]["status"]
print(status)
sys.exit(status != "healthy")
