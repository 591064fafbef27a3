"""`bench`, in a process that knows no plugin but the one that an option names.

A plugin's library keeps what it first saw of ONNX Runtime for its whole process: where the installed one was loaded,
a second one around it (any_vendor.c) changes nothing any more.
"""

from __future__ import annotations

from backends.onnx import plugins
from bench.cli import main

if __name__ == "__main__":
    plugins.PREFIXES = ()
    main()
