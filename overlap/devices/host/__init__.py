"""The host device: two engines made of this machine's cores, each fed by one in-order queue, with real clocks.

Where to look: `device` is the protocol, `plan` lays a program out for queues, `run` is one run of a plan, `workers` the
threads, `optimes` times kernels in isolation, `memory` keeps the process's memory warm.
"""
