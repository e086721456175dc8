"""Runs the emulator with the interceptors of tests; its options are those of `python -m local_aws`."""

from __future__ import annotations

import os
import sys
from functools import partial

from local_aws.server import MOTO_ENVIRONMENT

os.environ |= MOTO_ENVIRONMENT  # moto reads it when it is imported

from local_aws import assembly
from local_aws.__main__ import main
from tests.emulator.armed import Faults
from tests.emulator.clusters import FaultyClusters
from tests.emulator.control import FaultControl
from tests.emulator.reads import FaultyReads
from tests.emulator.reply_check import ReplyCheck
from tests.emulator.wire import FaultyWire

faults = Faults()
clusters = FaultyClusters(faults)
# The check is inside of the faults, which cut replies.
interceptors = [FaultControl(faults), FaultyWire(faults), FaultyReads(faults, clusters), ReplyCheck()]
assembly.assemble = partial(assembly.assemble, hooks=clusters, interceptors=interceptors)  # type: ignore[assignment]
sys.exit(main())
