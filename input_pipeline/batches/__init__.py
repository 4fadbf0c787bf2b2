"""The batch of a step: a pure function of shards, seed and step."""
