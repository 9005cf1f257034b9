"""Traces: one event table for every source (`schema`), a reader per format (`read`), writers for viewers, a cache."""
