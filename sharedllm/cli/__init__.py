"""The command line: one file per command group, each imported only when its command runs.

What must not happen here: computation. A command parses, calls a room, and prints.
"""
