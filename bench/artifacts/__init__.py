"""The canonical artifact: synthesized, read, digested, cached, and the reference that the gate compares with."""
