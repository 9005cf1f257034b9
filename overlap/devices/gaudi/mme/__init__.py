"""What one GEMM costs on Gaudi's matrix engine, by the rules of the vendor's open cost model.

problem.py    what a GEMM is            geometry.py   tiles, in terms of gaudi2.py and gaudi3.py
reuse.py      buffers and descriptors   cycles.py     steps and their time
choose.py     which strategy is taken   cost.py       all of it as one record
"""

from overlap.devices.gaudi.mme.constants import MmeConstants, mme_constants
from overlap.devices.gaudi.mme.cost import GemmCost, cost, gemm_cost
from overlap.devices.gaudi.mme.problem import Gemm

__all__ = ["Gemm", "GemmCost", "MmeConstants", "cost", "gemm_cost", "mme_constants"]
