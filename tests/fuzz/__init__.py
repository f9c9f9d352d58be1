"""Fuzzing: whatever bytes come, nothing crashes, hangs or takes more memory than the limits say."""
