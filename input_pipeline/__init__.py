"""Text to batches: sources, sentences, tokens, shards, pairs, masks. Never imports bert_jax."""
