"""The seams: one of each kind is added here, in the test, and runs through the real thing; no other file is touched.

A source and a text format have their tests beside their rooms' others: test_own_sources.py.
"""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from bert_jax import config as cfg, evaluate, finetune, metrics, objectives, optimizer, recipes, run_directory, train
from bert_jax.convert import exchange
from bert_jax.model import encoder, layers
from bert_jax.tasks import table
from bert_jax.tasks.settings import Finetune, TaskBatch
from bert_jax.tasks.task import Row, Settings, Shown, Task
from tests import synthetic

VOCABULARY = 120


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return synthetic.write_data(tmp_path_factory.mktemp('seams') / 'data', vocabulary_size=VOCABULARY, pieces=200,
                              documents=30, sequence_length=32, splits=('train', 'validation'))


def config(**changes):
  base = cfg.Config(
      model=recipes.model_of(2, 64, vocab_size=VOCABULARY, dtype='float32', unroll=1, heads=2),
      batch=cfg.BatchConfig(size=16, sequence_length=32, predictions=5),
      optimizer=cfg.Optimizer(peak_learning_rate=1e-3, warmup_steps=2),
      run=cfg.Run(steps=8, log_every=4, checkpoint_every=4, evaluate_every=8, evaluation_rows=32))
  return dataclasses.replace(base, **changes)


def losses(run_dir, name='loss'):
  return [line[name] for line in metrics.read(run_dir) if line['kind'] == 'train']


def pretrain(settings, data, run_dir):
  """On a 2 x 2 x 2 mesh, stopped in the middle and gone on with: what is added must be laid out, saved and restored."""
  settings = dataclasses.replace(settings, mesh=cfg.MeshShape(2, 2, 2))
  assert train.train(settings, data, run_dir, progress=False, stop=lambda step: step == 5).step == 5
  result = train.train(settings, data, run_dir, progress=False)
  assert result.resumed_from == 5 and result.step == settings.run.steps
  return result


def lion(o, about):
  """arXiv:2302.06675 by optax, whose state is one moment."""
  return optax.chain(optax.scale_by_lion(o.b1, o.b2), optax.add_decayed_weights(o.weight_decay, about.decayed))


def adafactor(o, about):
  """arXiv:1804.04235 by optax: statistics of rows and of columns, whose shapes are no parameter's."""
  return optax.scale_by_factored_rms(min_dim_size_to_factor=8)


def sawtooth(o, steps):
  return lambda step: o.peak_learning_rate * (1 - (step % 4) / 8)


@pytest.mark.parametrize('make', [lion, adafactor])
def test_an_optimizer_and_a_schedule(data, tmp_path, monkeypatch, make):
  monkeypatch.setitem(optimizer.OPTIMIZERS, 'mine', make)
  monkeypatch.setitem(optimizer.SCHEDULES, 'sawtooth', sawtooth)
  settings = config(optimizer=cfg.Optimizer(
      name='mine', schedule='sawtooth', peak_learning_rate=1e-4, warmup_steps=0, b2=0.99))
  result = pretrain(settings, data, tmp_path / 'run')
  assert len(losses(tmp_path / 'run')) == 2 and np.isfinite(losses(tmp_path / 'run')).all()
  assert losses(tmp_path / 'run', 'learning_rate') == pytest.approx([1e-4 * 5 / 8] * 2)
  assert not any(leaf.sharding.is_fully_replicated for path, leaf in jax.tree.leaves_with_path(result.state.opt_state)
                 if leaf.ndim == 3)  # stacks of matrices are shared out, whatever keeps them


def test_an_objective_with_a_loss_of_its_own(data, tmp_path, monkeypatch):
  """How many of a row's tokens are real, by squared error, by a head that is made here; figures need predictions."""
  class Length(nnx.Module):
    NAMES = {'huggingface': {'dense': 'length'}}

    def __init__(self, settings, rngs):
      self.dense = layers.LayerMaker(settings, rngs).linear(settings.hidden_size, 1, ('embed', None), dtype='float32')

    def __call__(self, hidden):  # [B T D] -> [B]
      return self.dense(hidden.mean(1))[:, 0]

  def targets(batch):
    real = (batch['pair_ids'] > 0).mean(-1)
    return real, (real > 0).astype('float32')

  term = objectives.Term(
      lambda model, hidden, batch, seed: model.length(hidden), targets,
      lambda settings, batch: 2.0 * settings.hidden_size,
      loss=lambda x, y, w: objectives.squared_error(x, y, w) | {'bias': ((x - y) * w).sum()})
  with_length = objectives.Objective(
      {'mlm': objectives.MLM, 'length': term}, objectives.PRETRAINING_HEADS | {'length': Length})
  monkeypatch.setitem(objectives.OBJECTIVES, 'mlm_length', with_length)
  result = pretrain(config(objective='mlm_length'), data, tmp_path / 'run')
  assert losses(tmp_path / 'run', 'length_loss')[1] < losses(tmp_path / 'run', 'length_loss')[0]
  assert result.state.params['length']['dense']['kernel'].shape == (64, 1)
  held_out = [line for line in metrics.read(tmp_path / 'run') if line['kind'] == 'validation']
  assert {'mlm_accuracy', 'length_loss', 'length_bias', 'loss'} <= set(held_out[0])
  assert 'length_accuracy' not in held_out[0]
  figures = evaluate.evaluate(tmp_path / 'run', progress=False)
  assert figures['length_bias'] ** 2 <= figures['length_loss'] + 1e-6


class Gated(encoder.Block):
  """A layer whose feed-forward part has a gate (arXiv:2002.05202): a matrix more."""

  def __init__(self, settings, rngs):
    super().__init__(settings, rngs)
    make = layers.LayerMaker(settings, rngs)
    self.gate = make.linear(settings.hidden_size, settings.intermediate_size, ('embed', 'mlp'))

  def __call__(self, x, pair_ids, token_numbers, seeds, implementation):
    plain = super().__call__(x, pair_ids, token_numbers, seeds, implementation)
    return plain + self.output(self.gate(x) * layers.activate('gelu', self.intermediate(x)))


class GatedEncoder(encoder.BertEncoder):
  NAMES = {'huggingface': encoder.BertEncoder.NAMES['huggingface'] | {'blocks/gate': 'encoder.layer.{}.gate.dense'}}

  @staticmethod
  def block(settings, rngs):
    return Gated(settings, rngs)

  @staticmethod
  def flops(settings, tokens):
    more = settings.layers * 2 * tokens * 2 * settings.hidden_size * settings.intermediate_size
    return encoder.BertEncoder.flops(settings, tokens) + more


def test_an_architecture(data, tmp_path, monkeypatch):
  monkeypatch.setitem(encoder.ENCODERS, 'gated', GatedEncoder)
  settings = config()
  settings = dataclasses.replace(settings, model=dataclasses.replace(settings.model, architecture='gated'))
  result = pretrain(settings, data, tmp_path / 'run')
  gate = result.state.params['encoder']['blocks']['gate']['kernel']
  assert gate.shape == (2, 64, 256) and gate.sharding.shard_shape(gate.shape) == (2, 32, 128)
  plain = config()
  assert (settings.learns.flops_per_row(settings.model, settings.batch)
          > 1.3 * plain.learns.flops_per_row(plain.model, settings.batch))
  assert run_directory.read(tmp_path / 'run').config.model.architecture == 'gated'
  assert 'mlm_loss' in evaluate.evaluate(tmp_path / 'run', progress=False)


def test_a_matrix_without_axes_is_refused_by_name(monkeypatch):
  class Careless(encoder.Block):

    def __init__(self, settings, rngs):
      super().__init__(settings, rngs)
      self.gate = nnx.Param(jnp.zeros((settings.hidden_size, 3)))

  class CarelessEncoder(encoder.BertEncoder):
    block = staticmethod(lambda settings, rngs: Careless(settings, rngs))

  monkeypatch.setitem(encoder.ENCODERS, 'careless', CarelessEncoder)
  settings = config()
  from bert_jax import program
  with pytest.raises(ValueError, match='gate.*logical axes'):
    program.of(dataclasses.replace(settings, model=dataclasses.replace(settings.model, architecture='careless')))


@dataclasses.dataclass(frozen=True)
class Tagged:
  tokens: list[int]
  tags: list[int]


@dataclasses.dataclass(frozen=True)
class Own(Settings):
  lower: int = 50
  """The last of the low tokens."""


def test_a_task(data, tmp_path, monkeypatch):
  """Tagging: a class for every token, with a head and an objective of its own, on the loop of pretraining."""
  class Tags(nnx.Module):
    NAMES = {'huggingface': {'dense': 'classifier'}}

    def __init__(self, settings, rngs, count):
      make = layers.LayerMaker(settings, rngs)
      self.dense = make.linear(settings.hidden_size, count, ('embed', None), dtype='float32')

    def __call__(self, hidden):  # [B T D] -> [B T C]
      return self.dense(hidden)

  def read(path, own):
    assert own.lower < 70
    return [Tagged(**json.loads(line)) for line in path.read_text().splitlines()]

  def rows(examples, encoding):
    of = lambda values: np.array(values, np.int32)
    return [Row(of(example.tokens), of([0] * n), np.arange(n, dtype=np.int32), of([1] * n), {}, i,
                {'tags': of(example.tags)})
            for i, example in enumerate(examples) for n in [len(example.tokens)]]

  def answers(examples, rows, outputs, encoding):
    return [{'tags': output['tag'][:len(example.tags)].tolist()} for example, output in zip(examples, outputs)]

  def metrics_of(examples, answers):
    wrong = sum(example.tags != answer['tags'] for example, answer in zip(examples, answers))
    return {'sentences': 1 - wrong / len(examples)}

  def shown(example, answer):
    return Shown(str(example.tokens), str(answer['tags']), str(example.tags), answer['tags'] == example.tags)

  def objective(labels, own):
    term = objectives.Term(
        lambda model, hidden, batch, seed: model.tags(hidden).reshape(-1, len(labels)),
        lambda batch: (batch['tags'], (batch['pair_ids'] > 0).astype('float32')),
        lambda settings, batch: 2.0 * batch.sequence_length * settings.hidden_size * len(labels),
        keep=lambda logits: logits.argmax(-1))
    return objectives.Objective({'tag': term}, {'tags': functools.partial(Tags, count=len(labels))})

  files = {'train': ('train.jsonl',), 'validation': ('dev.jsonl', 'validation.jsonl')}
  tagging = Task(files, read, lambda examples: ('low', 'high'), rows, objective, answers, metrics_of, 'sentences',
                 shown, settings=Own)
  monkeypatch.setitem(table.TASKS, 'tagging', tagging)
  train.train(config(run=cfg.Run(steps=2)), data, tmp_path / 'pretrained', progress=False, devices=jax.devices()[:1])
  rng = np.random.default_rng(0)
  (tmp_path / 'task').mkdir()
  for name, count in (('train.jsonl', 96), ('validation.jsonl', 21)):
    lines = [rng.integers(5, VOCABULARY, rng.integers(3, 16)).tolist() for _ in range(count)]
    text = ''.join(json.dumps({'tokens': tokens, 'tags': [int(t > 60) for t in tokens]}) + '\n' for tokens in lines)
    (tmp_path / 'task' / name).write_text(text)
  settings = Finetune(
      'tagging', epochs=10, batch=TaskBatch(16, 16), own=Own(60), mesh=cfg.MeshShape(2, 2, 2),
      model=cfg.Model(dtype='float32'),
      optimizer=cfg.Optimizer(name='adamw', peak_learning_rate=3e-3, warmup_steps=0, schedule='linear'))
  result, figures = finetune.finetune(
      settings, tmp_path / 'task', tmp_path / 'run', tmp_path / 'pretrained', progress=False)
  assert result.step == 60 and figures['tag_accuracy'] > .95 and figures['examples'] == 21
  assert figures['tag_accuracy'] - .5 < figures['sentences'] <= figures['tag_accuracy']
  assert run_directory.read(tmp_path / 'run').config.own == Own(60)
  assert run_directory.read(tmp_path / 'run').config.labels == ('low', 'high')
  again = finetune.evaluate(tmp_path / 'run', progress=False)
  assert again['tag_accuracy'] == pytest.approx(figures['tag_accuracy'])
  told = run_directory.figures(tmp_path / 'run')
  assert 0 <= told.pop(run_directory.COPIES) <= 1 and told == again


def test_a_checkpoint_format(data, tmp_path, monkeypatch):
  """Parameters as one NumPy archive: out by one line, in by one line."""
  run_dir = tmp_path / 'run'
  train.train(config(run=cfg.Run(steps=2)), data, run_dir, progress=False, devices=jax.devices()[:1])

  def write(loaded, source, output, layout, verify):
    output.mkdir()
    flat = {'/'.join(str(key.key) for key in path): np.asarray(leaf)
            for path, leaf in jax.tree.leaves_with_path(loaded.params)}
    np.savez(output / 'weights.npz', **flat)
    (output / 'settings.json').write_text(json.dumps(dataclasses.asdict(loaded.model)))
    return output

  monkeypatch.setitem(exchange.EXPORTERS, 'npz', write)
  where = exchange.export('npz', run_dir, tmp_path / 'npz')
  with np.load(where / 'weights.npz') as arrays:
    assert arrays['encoder/blocks/query/kernel'].shape == (2, 64, 64)
