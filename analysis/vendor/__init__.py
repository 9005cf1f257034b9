"""The figures that the vendor's own tools print, recomputed, for comparison with the honest ones."""
