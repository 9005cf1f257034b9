"""Search: which splits exist, in which order their ops enter the queues, which are worth timing, which one is kept.

Where to look: `space` enumerates candidates, `order` finds orders, `screen` ranks candidates by their op times, `race`
times them side by side, `decide` keeps one, `attribute` explains the gain, `journal` remembers every sample, `sweep` ties
them together.
"""
