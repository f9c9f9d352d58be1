"""What the robust rules cost and bear, measured beside ``byzfl``."""
