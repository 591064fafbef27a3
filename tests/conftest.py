"""For all tests: Ctrl-C reaches what they start, even where the tests themselves were started in the background."""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that puts a command behind & has it ignored
