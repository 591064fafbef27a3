"""Evenbench: the same quantized model on any vendor's chip, and a record that can be believed.

Words, used in this meaning everywhere:

model       architecture and size
scheme      how the weights are coded (int8, int4, fp16, ...)
artifact    the canonical file of one (model, weights source, scheme)
prepared    what one runtime derives from an artifact
backend     the adapter of one runtime on one family of devices
case        model x scheme x backend x devices x workload x options
load group  cases that share one loaded model
launch      one fresh worker process that executes a load group
session     a loaded model with a KV cache, inside a worker
step        one forward pass
sample      the timings of one repetition
reading     one value of one meter
record      what one case of one launch leaves in the store
series      records with the same identity

"Run" is a noun. Things are executed or measured.
"""

__version__ = "0.1.0"
