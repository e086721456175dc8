#!/usr/bin/env python
"""Health check of a container: `fruits-healthy PART` asks the API server how Airflow itself sees that part.

A part is healthy while its heartbeats arrive; `airflow jobs check` would import Airflow for seconds each time. The AWS
emulator (`aws`) is healthy once it is filled; `refill` and `credentials` while they are in the stack's network.
"""

import json
import os
import signal
import socket
import sys
import urllib.request
from pathlib import Path

part = sys.argv[1]
try:
    socket.create_connection(("127.0.0.1", 5599), timeout=8).close()
except ConnectionRefusedError:
    # The service `pod` has ended: a started one has another network, which only a restart takes this container to.
    # KILL, since Airflow without its database may not end on TERM; -1 is every process but this one and init.
    print("the container of the network is gone: restarting", flush=True)
    os.kill(-1, signal.SIGKILL)
    sys.exit(1)
if part in ("refill", "credentials"):
    sys.exit(0)
if part == "aws":
    urllib.request.urlopen("http://127.0.0.1:5600/_local_aws/health", timeout=8).close()
    # It starts empty, and writes the credentials at each start.
    filled, start = Path("/var/lib/fruits/deployment/filled"), Path("/var/lib/fruits/aws/credentials")
    sys.exit(not filled.exists() or filled.stat().st_mtime < start.stat().st_mtime)
with urllib.request.urlopen("http://127.0.0.1:8080/api/v2/monitor/health", timeout=8) as reply:
    status = json.load(reply)[part]["status"]
print(status)
sys.exit(status != "healthy")
