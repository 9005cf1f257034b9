"""How each source measured: functions from a `Row` to a `Case`, one module per kind of measurement.

Where a source does not say a condition, the reader either gives a reason or fills it in and says so in `assumed`.
"""
