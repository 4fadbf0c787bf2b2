"""What a run would need and cost: a compiled program, read."""
