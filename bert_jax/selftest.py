"""A kernel must prove itself where it runs: one layer of a run's shapes by our kernels, beside the same in plain JAX.

Compilers differ, and so do chips: what the tests saw on a CPU's interpreter or on one GPU is no promise for another.
Value and gradient are compared with float32, packed and padded, with the run's dropout. Tokens that are changed in one
pair must leave the output of every other pair equal to the last bit, and one that is changed must be seen by its own.

B rows, T tokens, D hidden.
"""

import dataclasses
import functools
import time
import warnings
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bert_jax import choices, config as cfg, distributed, synthetic
from bert_jax.errors import require
from bert_jax.model import build
from bert_jax.model.attention import Place, choose_implementation

KERNELS = 'pallas', 'triton'  # of the implementations of attention, those that we wrote
# In which types they are looked at beside the run's: what was added up in 16 bits hides among the rounding of 16 bits.
BESIDE = {'triton': ('float32',)}
PAIRS, VOCABULARY, SEED = 3, 512, 7
LEAST_ROWS, LEAST_TOKENS = 2, 4096  # of a batch; of so many tokens each program of a kernel takes several steps
LOUD, SPREAD = 1.2, 0.3  # of the parameters: products' results times what comes in, and of all others
TIMES = 3  # the error of plain JAX in the run's type that a kernel may have
ROUNDING = {'bfloat16': 2**-8, 'float32': 2**-16}  # of an array's norm; float32 on a GPU may be rounded to 19 bits
OF_LENGTH = 3 / 4  # of those units, how much longer or shorter an array may be: rounding mostly cancels out there
EDGE, PLACES = 16, 32  # tokens of the least block; how many tokens at the edges of blocks are changed one by one
SEEN, LEAST_SEEN = 1 / 16, 8  # of those that see such a token, how many must notice; of fewer nothing is asked
UNLIKELY = 1e-9  # that dropout hides a token from all who see it
OF_ALL = 0.03  # of the whole gradient's norm: the least that one counts for, as that of the keys' bias is but rounding

# What is counted and must be 0.
COUNTED = {'other pairs': 'numbers of other pairs changed with the tokens of one',
           'own pair': 'tokens were changed and hardly seen by their own pair'}


@dataclasses.dataclass(frozen=True)
class Finding:
  """One comparison."""
  tokens: int
  rows: str  # 'packed' or 'padded', and the type
  what: str  # 'value', 'gradient of …', 'length of …' of each of them, or one of COUNTED
  error: float  # norm of the difference over the norm, of a length without a sign; of COUNTED, how many
  limit: float

  @property
  def passed(self) -> bool:
    return self.error <= self.limit  # not where it is nan

  def text(self) -> str:
    """As a line of a report."""
    return f'rows of {self.tokens}, {self.rows}: ' + (
        f'{self.error:.0f} {COUNTED[self.what]}' if self.what in COUNTED else
        f'{self.what} {self.error:.2g} off, at most {self.limit:.2g} wanted')


def findings(model, place: Place, tokens: int, device: jax.Device | None = None, seed: int = SEED
             ) -> Iterator[Finding]:
  """Compares the kernels that `model` (settings.Model) would run on rows of so many tokens at that place.

  Nothing where it runs none of ours. By `seed` parameters, rows, dropout and gradients are drawn.
  """
  ours = choose_implementation(model, place, tokens)
  if ours not in KERNELS:
    return
  model = dataclasses.replace(model, layers=1, unroll=1, vocab_size=min(model.vocab_size, VOCABULARY), attention=ours,
                              dtype=model.computes_in)
  with jax.default_device(device or jax.local_devices()[0]):
    yield from _findings(model, place, tokens, seed)
    for dtype in BESIDE.get(ours, ()):
      if dtype != model.dtype:
        try:
          yield from list(_findings(dataclasses.replace(model, dtype=dtype), place, tokens, seed))
        except Exception:  # what cannot be compiled in a type that the run has no part in is no fault of its own
          pass


def _findings(model, place: Place, tokens: int, seed: int) -> Iterator[Finding]:
  """Of one layer in the type of the model."""
  plain = dataclasses.replace(model, attention='xla')
  exact = dataclasses.replace(plain, dtype='float32')
  key = jax.random.key(seed)
  params = parameters_of(model)(key)
  for name, pairs, shortest in (('packed', PAIRS, 1.0), ('padded', 1, 0.5)):
    B = max(LEAST_ROWS, LEAST_TOKENS // tokens)
    batch = synthetic.batch(model.vocab_size, B, tokens, 1, pairs=pairs, shortest=shortest, seed=seed)
    batch['pair_ids'][-1, -tokens // 8:] = 0  # both have padding
    batch = {key: jnp.asarray(batch[key]) for key in ('input_ids', 'token_type_ids', 'position_ids', 'pair_ids')}
    found = [value_and_gradient(settings, place)(params, batch, key) for settings in (model, plain)]
    with jax.default_matmul_precision('highest'):
      found.append(value_and_gradient(exact, place)(params, batch, key))
    rows = f'{name}, {model.dtype}'
    yield from compared(tokens, rows, model.dtype, *jax.device_get(found))
    hidden = functools.partial(_hidden, model, place, params, batch, key)
    yield Finding(tokens, rows, 'other pairs', leaks(batch, model.vocab_size, hidden), 0)
    yield Finding(tokens, rows, 'own pair', unseen(batch, model, hidden, np.random.default_rng(seed)), 0)


@functools.cache
def parameters_of(model):
  """jit of key -> `parameters`."""
  return jax.jit(functools.partial(parameters, model))


def parameters(model, key):
  """None of which may be left out without a trace: initial biases are 0, scales 1, and all scores nearly equal."""
  params = build.build(model, {}, key)[1]
  normal = lambda x, place: jax.random.normal(jax.random.fold_in(key, place), x.shape, x.dtype)
  leaves, tree = jax.tree.flatten(params)
  return jax.tree.unflatten(tree, [
      normal(x, place) * LOUD * x.shape[-2]**-0.5 if x.ndim > 2 else x + SPREAD * normal(x, place)
      for place, x in enumerate(leaves)])


@functools.cache
def value_and_gradient(model, place: Place):
  """jit of (parameters, batch, key) -> (hidden [B T D], the gradient of a random projection of it)."""
  graphdef, _, _ = build.describe(model, {}, place)

  def run(params, batch, key):
    weights = jax.random.normal(key, (*batch['pair_ids'].shape, model.hidden_size))
    of = lambda params: nnx.merge(graphdef, params).encoder(batch, key).astype(jnp.float32)
    hidden, pull = jax.vjp(of, params)
    return hidden, pull(weights)[0]

  return jax.jit(run)


def compared(tokens: int, rows: str, dtype: str, ours, plain, exact) -> Iterator[Finding]:
  """Value, and each parameter's gradient: ours and plain JAX from what is exact."""
  norm = lambda tree: float(np.sqrt(sum(np.square(x, dtype=np.float64).sum() for x in jax.tree.leaves(tree))))
  unit = ROUNDING[dtype]

  def of(what, mine, theirs, true, size):
    for name, measure, least in (
        (what, norm, unit),
        (f'length of {what}', lambda off: abs(np.vdot(off, true.astype(np.float64))) / size, unit * OF_LENGTH)):
      error, usual = (float(measure(side.astype(np.float64) - true) / size) for side in (mine, theirs))
      yield Finding(tokens, rows, name, error, TIMES * (usual + least))

  yield from of('value', ours[0], plain[0], exact[0], norm(exact[0]))
  everything = norm(exact[1])
  mine, theirs, true = (dict(jax.tree.leaves_with_path(side[1])) for side in (ours, plain, exact))
  for path, gradient in true.items():
    name = '/'.join(str(getattr(key, 'key', getattr(key, 'name', key))) for key in path)
    yield from of(f'gradient of {name}', mine[path], theirs[path], gradient, max(norm(gradient), OF_ALL * everything))


def _hidden(model, place: Place, params, batch, key, ids):  # [B T] -> [B T D]
  """The output for other tokens."""
  return np.asarray(value_and_gradient(model, place)(params, batch | {'input_ids': jnp.asarray(ids)}, key)[0])


def leaks(batch, vocabulary: int, hidden) -> int:
  """How many numbers change outside a pair, or padding, whose tokens are others; all, where none does inside.

  `hidden`: int32 [B T] -> [B T D], what a layer makes of tokens.
  """
  pair_ids, ids = (np.asarray(batch[name]) for name in ('pair_ids', 'input_ids'))
  before, count = hidden(ids), 0
  for pair in np.unique(pair_ids):
    own = pair_ids == pair
    changed = before != hidden(np.where(own, (ids + 1) % vocabulary, ids))
    count += int(changed[~own].sum()) if changed[own].any() else before.size
  return count


def unseen(batch, model, hidden, rng: np.random.Generator) -> int:
  """How many of some tokens at the edges of blocks can be changed, and hardly any of those that should see them do.

  A key that a mask hides by mistake is a small part of what a long pair sees, but nothing at all comes of its change.
  `hidden` as for `leaks`, by `model`.
  """
  pair_ids, ids = (np.asarray(batch[name]) for name in ('pair_ids', 'input_ids'))
  before, count, rows, at = hidden(ids), 0, np.arange(len(ids)), np.arange(ids.shape[1])
  edges = rng.permutation(at[(at % EDGE == 0) | (at % EDGE == EDGE - 1)])
  of_row = [edges[of[edges] > 0][:PLACES] for of in pair_ids]
  for turn in range(max(map(len, of_row))):
    places = np.array([of[turn % len(of)] if len(of) else 0 for of in of_row])
    changed = ids.copy()
    changed[rows, places] = (ids[rows, places] + 1) % model.vocab_size
    notice = (before != hidden(changed)).any(axis=-1)  # [B T]
    off = at[None] - places[:, None]
    sees = (pair_ids == pair_ids[rows, places][:, None]) & (pair_ids > 0) & (
        off * model.direction > 0 if model.direction else off != 0)
    many, rate = sees.sum(axis=1), model.attention_dropout
    asked = (many >= LEAST_SEEN) & (rate ** (many * model.heads) < UNLIKELY)
    count += int((asked & ((notice & sees).sum(axis=1) < SEEN * (1 - rate) * many)).sum())
  return count


@dataclasses.dataclass(frozen=True)
class Report:
  """What a test of all row lengths of a run found."""
  findings: tuple[Finding, ...]
  error: str  # of a kernel that could not be compiled or run
  seconds: float

  @property
  def failures(self) -> list[str]:
    return [self.error] * bool(self.error) + [item.text() for item in self.findings if not item.passed]


def run(model, place: Place, lengths: Iterable[int], device: jax.Device | None = None) -> Report:
  """Tests the kernels of each row length."""
  begin, found, error = time.monotonic(), [], ''
  try:
    for tokens in sorted(set(lengths)):
      found += findings(model, place, tokens, device)
  except Exception as raised:  # of XLA, of Pallas, of MLIR: whatever it is, the run goes on without these kernels
    error = f'{type(raised).__name__}: {(str(raised).splitlines() or [""])[0]:.300}'
  return Report(tuple(found), error, time.monotonic() - begin)


def proven(config, mesh, lengths: Iterable[int]):
  """(`config` with attention in plain JAX where a kernel of its own fails on this process' devices, lines that say what
  was found). Raises ConfigError where plain JAX does not fit into the memory of a device."""
  place = Place(mesh.devices.flat[0].platform, mesh.shape['tensor'])
  lengths = set(lengths)
  if place.platform == 'cpu' or not any(choose_implementation(config.model, place, tokens) in KERNELS
                                        for tokens in lengths):
    return config, ()
  report = run(config.model, place, lengths)
  failures = report.failures
  if not distributed.any_says(bool(failures)):
    return config, (f'{len(report.findings)} comparisons of our kernels with plain JAX passed, {report.seconds:.0f} s',)
  said = failures[0] if failures else 'on another host'
  warnings.warn(f'a kernel of ours fails on {jax.local_devices()[0].device_kind} ({said}): this run attends in plain '
                'JAX, slower and with more memory; `bert-jax selftest` says all', stacklevel=2)
  config = choices.with_model(config, attention='xla')
  require(not isinstance(config, cfg.Config) or choices.spare_bytes(config, list(mesh.devices.flat)) != 0,
          f'our kernel for {place.platform} fails here ({said}), and without it the step does not fit into a device: '
          f'set --run.microbatches above {config.run.microbatches}, or a smaller --batch.size')
  return config, ()
