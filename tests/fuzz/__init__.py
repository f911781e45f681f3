"""Fuzzed inputs for every entry point: `python -m fuzz --help`, or `make fuzz`.

An entry is a module with a function `opened(folder)`: a context manager that gives a check. The check makes one input
out of the `Input` that it is given, hands it over, and raises `Broken` where an invariant does not hold. Nothing but
(entry, seed, index) decides what an input is, so each can be made again alone.
"""
