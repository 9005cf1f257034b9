"""Devices: what can run a program. One module or package per device; all answer the protocol in `base`."""
