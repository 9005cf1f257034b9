"""Traces: one event table for every source (`schema`), and writers for the viewers people use."""
