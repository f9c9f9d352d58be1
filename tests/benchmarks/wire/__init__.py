"""What ternary weights take on disk and on the wire, how fast they are read, and what they cost."""
