"""BERT's forward pass in NumPy and float64, from the names and values of a file: what an exchange is compared with.

It shares nothing with the model, the table of names or the reader of the house: each of these may be wrong.

B rows, T tokens, H heads, D hidden, V vocabulary, C classes.
"""

import json
from collections.abc import Callable, Mapping

import numpy as np
import scipy.special

from input_pipeline import storage

Values = Callable[[str], np.ndarray]  # float64, by a name in the file


def tanh_gelu(x):
  return x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def exact_gelu(x):
  return x * 0.5 * (1 + scipy.special.erf(x / np.sqrt(2)))


class HuggingFace:
  """Weights by transformers' names."""

  def __init__(self, directory: storage.Path):
    import safetensors.numpy
    index = directory / 'model.safetensors.index.json'
    whole = not index.exists() or (directory / 'model.safetensors').exists()
    files = {'model.safetensors'} if whole else set(json.loads(index.read_text())['weight_map'].values())
    found = {}
    for file in files:
      found |= safetensors.numpy.load_file(directory / file)
    old = lambda name: name.replace('LayerNorm.gamma', 'LayerNorm.weight').replace('LayerNorm.beta', 'LayerNorm.bias')
    self.found = {old(name).removeprefix('bert.'): value for name, value in found.items()}
    self.config = json.loads((directory / 'config.json').read_text())
    self.gelu = exact_gelu if self.config.get('hidden_act', 'gelu') in ('gelu', 'gelu_python') else tanh_gelu
    self.epsilon = self.config.get('layer_norm_eps', 1e-12)

  def has(self, name: str) -> bool:
    return f'{name}.weight' in self.found or f'{name}.bias' in self.found

  def __getitem__(self, name: str) -> np.ndarray:
    return self.found[name].astype(np.float64)

  def table(self, name: str):
    return self[f'embeddings.{name}.weight']

  def linear(self, x, name: str):
    return x @ self[f'{name}.weight'].T + self[f'{name}.bias']

  def norm(self, x, name: str):
    return standard(x, self.epsilon) * self[f'{name}.weight'] + self[f'{name}.bias']

  def decoder_bias(self):
    return self['cls.predictions.bias' if 'cls.predictions.bias' in self.found else 'cls.predictions.decoder.bias']


class Google(HuggingFace):
  """Weights by the names of google-research/bert."""

  def __init__(self, prefix: storage.Path):
    import tensorflow as tf
    self.reader = tf.train.load_checkpoint(str(prefix))
    self.config = json.loads((prefix.parent / 'bert_config.json').read_text())
    self.gelu, self.epsilon = tanh_gelu, 1e-12

  def _theirs(self, name: str) -> str:
    name = name.replace('qa_outputs', 'cls.squad')
    before = '' if name.startswith('cls.') or name == 'classifier' else 'bert.'
    return (before + name).replace('.layer.', '.layer_').replace('.', '/').replace('classifier', '').strip('/')

  def has(self, name: str) -> bool:
    theirs = self._theirs(name)
    return any(self.reader.has_tensor(f'{theirs}/{leaf}'.strip('/')) for leaf in ('kernel', 'output_weights', 'gamma'))

  def __getitem__(self, name: str) -> np.ndarray:
    return self.reader.get_tensor(name).astype(np.float64)

  def table(self, name: str):
    return self[f'bert/embeddings/{name}']

  def linear(self, x, name: str):
    theirs = self._theirs(name)
    if self.reader.has_tensor(f'{theirs}/kernel'):
      return x @ self[f'{theirs}/kernel'] + self[f'{theirs}/bias']
    return x @ self[f'{theirs}/output_weights'.strip('/')].T + self[f'{theirs}/output_bias'.strip('/')]

  def norm(self, x, name: str):
    return standard(x, self.epsilon) * self[f'{self._theirs(name)}/gamma'] + self[f'{self._theirs(name)}/beta']

  def decoder_bias(self):
    return self['cls/predictions/output_bias']


def standard(x, epsilon: float):
  centred = x - x.mean(-1, keepdims=True)
  return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)


def softmax(x):
  powers = np.exp(x - x.max(-1, keepdims=True))
  return powers / powers.sum(-1, keepdims=True)


def outputs(weights: HuggingFace, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:  # {[B T]}
  """Hidden states [B T D], and the scores of each head that the file has."""
  ids, (B, T) = batch['input_ids'], batch['input_ids'].shape
  H = weights.config['num_attention_heads']
  x = (weights.table('word_embeddings')[ids] + weights.table('position_embeddings')[:T]
       + weights.table('token_type_embeddings')[batch['token_type_ids']])
  x = weights.norm(x, 'embeddings.LayerNorm')
  seen = np.broadcast_to((batch['pair_ids'] > 0)[:, None, None], (B, 1, T, T))
  if weights.config.get('is_decoder'):
    seen = seen & np.tri(T, dtype=bool)
  heads = lambda x: x.reshape(B, T, H, -1).swapaxes(1, 2)
  for i in range(weights.config['num_hidden_layers']):
    layer = f'encoder.layer.{i}'
    q, k, v = (heads(weights.linear(x, f'{layer}.attention.self.{name}')) for name in ('query', 'key', 'value'))
    scores = np.where(seen, q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1]), -1e9)
    attended = (softmax(scores) @ v).swapaxes(1, 2).reshape(B, T, -1)
    x = weights.norm(x + weights.linear(attended, f'{layer}.attention.output.dense'),
                     f'{layer}.attention.output.LayerNorm')
    wide = weights.gelu(weights.linear(x, f'{layer}.intermediate.dense'))
    x = weights.norm(x + weights.linear(wide, f'{layer}.output.dense'), f'{layer}.output.LayerNorm')
  found = {'last_hidden_state': x}
  if weights.has('cls.predictions.transform.dense'):
    h = weights.gelu(weights.linear(x, 'cls.predictions.transform.dense'))
    h = weights.norm(h, 'cls.predictions.transform.LayerNorm')
    found['prediction_logits'] = h @ weights.table('word_embeddings').T + weights.decoder_bias()
  if weights.has('qa_outputs'):
    ends = weights.linear(x, 'qa_outputs')
    found |= {'start_logits': ends[..., 0], 'end_logits': ends[..., 1]}
  if 'BertForTokenClassification' in (weights.config.get('architectures') or ()):
    found['logits'] = weights.linear(x, 'classifier')
  elif weights.has('pooler.dense'):
    pooled = np.tanh(weights.linear(x[:, 0], 'pooler.dense'))
    found['pooler_output'] = pooled
    found |= {name: weights.linear(pooled, head) for name, head in (
        ('seq_relationship_logits', 'cls.seq_relationship'), ('logits', 'classifier')) if weights.has(head)}
  scores = [name for name in found if name.endswith('logits')]
  return {'logits' if [name] == scores else name: value for name, value in found.items()}
