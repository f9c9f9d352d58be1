"""Commands of the network: starting it, joining it, looking at it, and excluding from it.

What must not happen here: computation; a secret in an argument that stays, in output that nobody asked for,
or in an error.
"""
