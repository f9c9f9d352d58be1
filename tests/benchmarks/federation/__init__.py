"""What the federation costs, in bytes and seconds; see ``__main__``."""
