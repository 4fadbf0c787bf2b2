"""Documents to shuffled, checksummed shards: in one process, in many, or on a cluster."""
