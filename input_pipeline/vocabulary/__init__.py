"""Tokenizers, and the training of their vocabularies."""
