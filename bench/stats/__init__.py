"""What may be concluded from launches: intervals, tests, verdicts, nights. Pure; numpy, and scipy from `analysis`.

Imported by commands that compare, never by those that measure or print tables. The unit is the launch: samples of one
process share its memory layout, so they are no independent evidence. Values are positive, and everything is computed
on their logarithms: a change is a ratio.
"""
