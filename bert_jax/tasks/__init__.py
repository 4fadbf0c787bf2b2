"""Fine-tuning: one file a kind of task, one line in table.py."""
