"""Readers: one module per file format, each from bytes to the tables of `overlap.traces.schema`."""
