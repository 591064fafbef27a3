"""For all tests: what this machine, its user and whoever started the tests have must not be seen."""

import os
import signal
import tempfile

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that puts a command behind & has it ignored
os.environ["BENCH_LOCKS"] = tempfile.mkdtemp(prefix="bench-locks-")  # a bench that measures meanwhile is not waited for
os.environ["BENCH_SENSORS"] = "off"  # nor is there a baseline of sensors that happen to be here
