"""The encoder and its heads: layers, attention, dropout, lookup."""
