"""SharedLLM: a community-owned LLM platform, and a catalogue of claims that anyone can rerun.

Rooms import downwards only: ``cli ▸ bets ▸ {adapters, combiner, attribution, training} ▸ corpus ▸ store
▸ model ▸ shapes, errors``. Nothing heavy is imported here, so that ``sharedllm --help`` stays fast.
"""

__version__ = "0.1.0"
