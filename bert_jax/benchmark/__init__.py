"""What the training step costs, and how it compares with others' in turns: one file a peer."""
