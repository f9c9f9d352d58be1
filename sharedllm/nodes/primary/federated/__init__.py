"""Specialists and users' adapters behind one primary: what is served by which name, and who chooses a token.

What must not happen here: a token that depends on the batch, on the order in which members answer, or on a
failover; a member that is asked without the others.

Bets that rest on it: b005 and b045 read through it what a single model says; none runs a mixture here.
"""
