"""A model of Intel Gaudi2 and Gaudi3: what a program would take on one, simulated op by op.

`chips/` holds every constant with its source, `mme/` what the vendor's cost model says about a GEMM, and
`model.py` the device that puts the parts together. Nothing here knows about attention: only ops, tensors and edges.
"""
