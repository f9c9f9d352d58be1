"""The command groups of the federation; each imports its rooms only when it is called."""
