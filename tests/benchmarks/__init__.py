"""Measurements against code that nobody here wrote. They print figures; they pass or fail nothing."""
