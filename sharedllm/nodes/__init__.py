"""The network: coordinator, primaries and workers, and what they need to trust and reach each other.

Each room below imports only what it needs, so that a worker's parent process, which holds the open port,
never loads torch. Nothing here computes a layer (``engines`` do) and nothing knows what a bet is.

Bets that rest on it: b005 (handoff), b045 (throttle).
"""
