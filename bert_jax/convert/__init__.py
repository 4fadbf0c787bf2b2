"""Exchange of checkpoints with other programs: one file a format, and what all formats share."""
