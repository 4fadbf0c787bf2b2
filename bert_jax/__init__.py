"""BERT in JAX: the encoder and how it learns. Importing any of it never imports TensorFlow."""
