"""LoRA in other people's form: a folder that ``peft`` loads on transformers' model of the same weights.

What must not happen here: reading an adapter as something that it is not. Whatever a configuration asks for
beyond plain LoRA is refused by name.

Bets that rest on it: none.
"""

from __future__ import annotations

from sharedllm.adapters.exchange.folder import read_folder, write_folder

__all__ = ["read_folder", "write_folder"]
