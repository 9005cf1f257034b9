"""Figures: functions from frames and numbers to Plotly figures. None of them computes, reads or writes anything."""
