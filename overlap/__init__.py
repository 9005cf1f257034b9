"""overlap: keep both engines of an accelerator busy by splitting attention, and prove it.

The package is one import root for rooms that lie side by side in the repository: `overlap.kernels`, `overlap.traces`,
`overlap.analysis` and `overlap.conf` are the top-level folders of the same names.
"""

__version__ = "0.1.0"
