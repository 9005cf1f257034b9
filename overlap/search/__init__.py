"""Search: which splits exist, in which order their ops enter the queues, which are worth timing, which one is kept.

Where to look: `candidate` enumerates the space, `order` finds orders, `screen` ranks candidates by their op times,
`check` compares results with the reference, `race` times candidates side by side, `decide` keeps one, `attribute`
explains the gain, `journal` remembers every sample, `sweep` ties them together. `profile` looks at a single split.
"""
