"""That nothing changes at a border: both sides run on the same text, and the largest differences are told.

B rows, T tokens, D hidden.
"""

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping

import jax
import numpy as np
from flax import nnx

from bert_jax.checkpoint import Loaded
from bert_jax.convert import google, huggingface, plain
from bert_jax.errors import CheckpointError, require
from bert_jax.model import build
from bert_jax.parallel.mesh import path_name
from bert_jax.tasks.sentences import truncate_pair
from input_pipeline import storage

TOLERANCE = 2e-5  # of a difference, where values are of size 1 or below; of their root mean square where that is more
LONGEST = 64  # tokens of a text that is compared
DRAWN = 4  # rows of ids from the whole vocabulary, after those of TEXTS

# Some of each: short, long, pairs, accents, other scripts, digits and signs.
TEXTS: tuple[tuple[str, ...], ...] = (
    ('The harbour froze in the winter of 1709, and ships waited for the thaw until the end of April.',),
    ('She put the letter back.', 'Nobody had opened it, and the seal was whole.'),
    ('A bridge of stone has stood here since the twelfth century; the flood of 1342 took three of its arches, and the '
     'town rebuilt them with the timber that the same flood had brought down from the hills.',),
    ('No.',), ('Où est la gare, s\'il vous plaît? – Là-bas, à côté du café.', 'Merci!'),
    ('北京是中華人民共和國的首都。', '它位於華北平原。'), ('Die Brücke über die Elbe kostete 3,7 Mio. € (netto).',),
    ('def area(r): return 3.14159 * r ** 2  # m²', 'e = mc^2'))

Outputs = Mapping[str, np.ndarray]  # by the names of transformers' outputs: last_hidden_state [B T D], logits …
Batch = dict[str, np.ndarray]  # {[B T]}: input_ids, token_type_ids, position_ids, pair_ids
Run = Callable[[storage.Path, Loaded, Batch], tuple[str, Outputs]]  # by a format's runtime: its name, what it gives


@dataclasses.dataclass(frozen=True)
class Difference:
  """What a comparison found of one output."""
  output: str
  largest: float
  allowed: float


def batch_of(loaded: Loaded) -> Batch:
  """TEXTS, and rows of ids that are drawn from the whole vocabulary; of many lengths, padded to the longest."""
  tokenizer, model = loaded.tokenizer(), loaded.model
  longest = min(LONGEST, model.max_positions)
  rows = []
  for text in TEXTS:
    parts = [list(ids) for ids in tokenizer.encode(list(text) if model.type_vocab_size > 1 else list(text[:1]))]
    truncate_pair(parts[0], parts[1] if len(parts) > 1 else [], longest - 1 - len(parts))
    rows.append([part + [tokenizer.sep_id] for part in parts])
  rng = np.random.default_rng(0)
  ids = np.delete(np.arange(model.vocab_size), tokenizer.pad_id)  # transformers takes no gradient of it, and we none
  rows += [[rng.choice(ids, longest - 1 - i).tolist()] for i in range(min(DRAWN, longest - 1))]
  batch = {name: np.zeros((len(rows), longest), np.int32) for name in ('token_type_ids', 'position_ids', 'pair_ids')}
  batch['input_ids'] = np.full((len(rows), longest), tokenizer.pad_id, np.int32)
  for i, parts in enumerate(rows):
    ids = [tokenizer.cls_id] + [token for part in parts for token in part]
    types = [0] + [number for number, part in enumerate(parts) for _ in part]
    batch['input_ids'][i, :len(ids)], batch['token_type_ids'][i, :len(ids)] = ids, types
    batch['position_ids'][i, :len(ids)], batch['pair_ids'][i, :len(ids)] = np.arange(len(ids)), 1
  return batch


def check_heads(loaded: Loaded) -> None:
  """Raises ConfigError where a head does not say what it gives."""
  graphdef, shapes, _ = build.describe(loaded.model, loaded.objective.heads)
  model = nnx.merge(graphdef, shapes)
  for name in loaded.objective.heads:
    kind = type(getattr(model, name))
    require(hasattr(kind, 'outputs'), f'the head {name} does not say what it gives, so that no other program can be '
            f'compared with it: add {kind.__name__}.outputs')


def forward(model: nnx.Module, heads, batch) -> dict[str, jax.Array]:
  """What our model and its heads give, by the names of transformers' outputs."""
  hidden = model.encoder(batch)
  found = {'last_hidden_state': hidden}
  for name in heads:
    found |= getattr(model, name).outputs(model, hidden)
  scores = [name for name in found if name.endswith('logits')]
  return {'logits' if [name] == scores else name: value for name, value in found.items()}


def ours(loaded: Loaded, batch: Batch) -> Outputs:
  """What our model gives, in float32."""
  model = dataclasses.replace(loaded.model, dtype='float32', attention='xla')
  heads = loaded.objective.heads
  graphdef, _, _ = build.describe(model, heads)

  @jax.jit
  def run(params):
    with jax.default_matmul_precision('float32'):
      return forward(nnx.merge(graphdef, params), heads, batch)

  return jax.device_get(run(dict(loaded.params)))


def compare(one: Outputs, other: Outputs, batch: Batch) -> list[Difference]:
  """The largest difference of each output that both have, on tokens that are no padding."""
  real = batch['pair_ids'] > 0
  found = []
  for name in one:
    if name in other:
      a, b = one[name], other[name]
      if name.endswith('logits') and a.ndim == 3:  # a padded vocabulary has more
        a, b = (x[..., :min(a.shape[-1], b.shape[-1])] for x in (a, b))
      if a.ndim == 3 or name.endswith('logits') and a.shape == real.shape:
        a, b = a[real], b[real]
      size = float(np.sqrt(np.square(b.astype(np.float64)).mean()))
      found.append(Difference(name, float(np.abs(a - b).max()), TOLERANCE * max(1.0, size)))
  return found


def check(differences: list[Difference], runtime: str, batch: Batch) -> str:
  """Lines for people. Raises CheckpointError where a difference is too large, or is no number."""
  rows = batch['pair_ids'].sum(axis=1)
  lines = [f'{found.output:<24} differ by {found.largest:.1e} at most, of {found.allowed:.1e} allowed'
           for found in differences]
  wrong = [found for found in differences if not found.largest <= found.allowed]
  if wrong or not differences:
    raise CheckpointError(f'nothing was written: compared with {runtime}, ' + (
        '; '.join(f'{found.output} differ by {found.largest:.1e}, and {found.allowed:.1e} would be allowed'
                  for found in wrong) or 'there is no output that both have'))
  return '\n'.join([f'compared with {runtime} on {len(rows)} rows of {rows.min()} to {rows.max()} tokens:', *lines])


def equal(one: Loaded, other: Loaded) -> str:
  """A line for people. Raises CheckpointError where parameters differ in any bit."""
  named = lambda loaded: {path_name(path): np.asarray(leaf)
                          for path, leaf in jax.tree.leaves_with_path(loaded.params)}
  a, b = named(one), named(other)
  wrong = sorted(name for name in a.keys() | b.keys()
                 if name not in a or name not in b or a[name].tobytes() != b[name].tobytes())
  if wrong:
    raise CheckpointError(f'nothing was written: read again, {wrong[0]} is another')
  return f'read again, {len(a)} arrays of {sum(x.size for x in a.values()):,} parameters are equal to the last bit'

# ---------------------------------------------------------------- by the runtimes of other formats


def run_huggingface(path: storage.Path, loaded: Loaded, batch: Batch) -> tuple[str, Outputs]:
  """transformers, where it is installed; else the plain forward pass."""
  with storage.on_disk(huggingface.root_of(path)) as directory:
    return _huggingface(directory, loaded, batch)


def _huggingface(directory: storage.Path, loaded: Loaded, batch: Batch) -> tuple[str, Outputs]:
  if not all(map(importlib.util.find_spec, ('torch', 'transformers'))):
    return 'a plain forward pass in float64', plain.outputs(plain.HuggingFace(directory), batch)
  import torch
  import transformers
  heads, name = loaded.objective.heads, huggingface.architecture(loaded.objective)
  options = {'add_pooling_layer': 'pooler' in heads} if name == huggingface.BARE else {}
  bars = transformers.utils.logging
  shown = bars.is_progress_bar_enabled()
  bars.disable_progress_bar()
  model = getattr(transformers, name).from_pretrained(directory, use_safetensors=True, local_files_only=True, **options)
  if shown:
    bars.enable_progress_bar()
  inputs = {'input_ids': batch['input_ids'], 'token_type_ids': batch['token_type_ids'],
            'attention_mask': batch['pair_ids']}
  if name == huggingface.OF_TASKS['choice']:  # it reads [B C T]: of one choice here
    inputs = {name: value[:, None] for name, value in inputs.items()}
  with torch.no_grad():
    given = model.float().eval()(**{name: torch.from_numpy(value.astype(np.int64)) for name, value in inputs.items()},
                                 output_hidden_states=True)
  found = {**given, 'last_hidden_state': given.hidden_states[-1]}
  return f'transformers {transformers.__version__}', {
      name: value.numpy() for name, value in found.items() if isinstance(value, torch.Tensor)}


def run_google(path: storage.Path, loaded: Loaded, batch: Batch) -> tuple[str, Outputs]:
  """The plain forward pass on what TensorFlow reads: the original's code runs on TensorFlow 1."""
  prefix = google.prefix_of(path)
  with storage.on_disk(prefix.parent) as directory:
    found = plain.outputs(plain.Google(directory / prefix.name), batch)
  return 'a plain forward pass in float64 on what TensorFlow reads', found


RUNS: dict[str, Run] = {huggingface.KIND: run_huggingface, google.KIND: run_google}
