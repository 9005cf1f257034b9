"""Analysis: pure functions from event tables to numbers and frames, and the figures and pages built from those."""
