"""Which extra brings a package that is not installed: a core install says so in a sentence."""

# The module that is imported -> the extra of setup.cfg that brings it.
EXTRAS = {
    'tensorflow': 'input', 'tensorflow_datasets': 'input', 'importlib_resources': 'input', 'sentencepiece': 'text',
    'sentencex': 'text', 'pyarrow': 'text', 'google_crc32c': 'text', 'zstandard': 'text',
    'warcio': 'crawl', 'resiliparse': 'crawl', 'gensim': 'sample', 'jieba': 'chinese', 'apache_beam': 'beam',
    'ray': 'ray', 'matplotlib': 'plot', 'jinja2': 'plot',
    'tensorboard': 'tensorboard', 'wandb': 'wandb', 'mlflow': 'mlflow',
    'gcsfs': 'gcs', 'google.cloud.storage': 'gcs', 'torch': 'peers', 'transformers': 'peers',
    'sentence_transformers': 'peers', 'sklearn': 'tasks', 'scipy': 'tasks', 'seqeval': 'tasks',
    'nltk': 'tasks', 'onnx': 'onnx', 'onnxruntime': 'onnx'}


def missing(error: BaseException | None) -> str | None:
  """A sentence where an import of what an extra brings is what failed; None of any other error."""
  while error is not None:
    if isinstance(error, ModuleNotFoundError) and error.name:
      found = next((name for name in EXTRAS if error.name == name or error.name.startswith(f'{name}.')), None)
      if found:
        return f"this needs {found}, which is not installed here: pip install 'bert_jax[{EXTRAS[found]}]'"
    if hasattr(error, 'exit_code'):
      return None  # it says itself what is wrong
    error = error.__cause__
  return None
