"""What is surely wrong with a run is refused before step 1, what may be is told with its setting; and bands."""

import dataclasses

import jax
import numpy as np
import pytest

from bert_jax import config as cfg, health, metrics, phases, program as program_lib, recipes, train
from bert_jax.errors import ConfigError
from input_pipeline.errors import DataError
from tests import synthetic

VOCABULARY = 64


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return synthetic.write_data(tmp_path_factory.mktemp('health') / 'data', vocabulary_size=VOCABULARY, pieces=400,
                              documents=40, sequence_length=16)


@pytest.fixture(scope='module')
def config():
  return cfg.Config(
      model=recipes.model_of(1, 64, vocab_size=VOCABULARY, dtype='float32'), mesh=cfg.MeshShape(data=1),
      batch=cfg.BatchConfig(size=256, sequence_length=16, predictions=4), optimizer=cfg.Optimizer(warmup_steps=2),
      run=cfg.Run(steps=20, log_every=1))


@pytest.fixture(scope='module')
def opened(data, config):
  return program_lib.of(config, jax.devices()[:1]), phases.open_streams(data, config)


def changed(opened, rows=None, **split):
  """The same data, but for what its manifest says of the split, and for arrays of the first rows."""
  program, [(phase, stream)] = opened
  other = dataclasses.replace(stream.manifest, splits=stream.manifest.splits | {
      'train': dataclasses.replace(stream.manifest.splits['train'], **split)})
  copy = object.__new__(type(stream))
  vars(copy).update(vars(stream), manifest=other)
  if rows:
    copy.rows = lambda *arguments: rows(stream.rows(*arguments))
  return program, [(phase, copy)]


def test_a_sound_run_is_told_in_two_lines_and_not_warned_of(opened):
  found = health.preflight(*opened)
  assert len(found.lines) == 2 and '40 documents' in found.lines[0] and '% of 2' in found.lines[1], found.lines
  assert [text for text in found.warnings if 'documents' not in text] == []
  assert 0 < found.unigram < np.log(VOCABULARY)


@pytest.mark.parametrize('change, error, message', [
    (dict(unknown_tokens=10**5), DataError, r'\[UNK\].*--vocabulary'),
    (dict(rows=lambda rows: rows | {'masked_lm_weights': 0 * rows['masked_lm_weights']}), DataError, 'masking.share'),
    (dict(rows=lambda rows: rows | {'next_sentence_labels': np.zeros_like(rows['next_sentence_labels'])}), DataError,
     'none of'),
    (dict(rows=lambda rows: rows | {'next_sentence_labels': np.ones_like(rows['next_sentence_labels'])}), DataError,
     'all of'),
])
def test_what_cannot_work_is_refused(change, error, message, opened):
  with pytest.raises(error, match=message):
    health.preflight(*changed(opened, **change))


def test_a_state_that_no_device_holds_is_refused(opened, monkeypatch):
  monkeypatch.setattr(health, 'device_bytes', lambda device: 1000)
  with pytest.raises(ConfigError, match='mesh.fsdp'):
    health.preflight(*opened)


@pytest.mark.parametrize('change, setting', [
    (dict(unknown_tokens=300), '--vocabulary'), (dict(documents=3), '--input'),
    (dict(rows=lambda rows: rows | {'masked_lm_weights': rows['masked_lm_weights'] * (np.arange(4) < 1)}),
     'batch.predictions'),
    (dict(rows=lambda rows: rows | {'next_sentence_labels': np.where(np.arange(256)[:, None] % 10 == 0, 1, 0)
                                    + 0 * rows['next_sentence_labels']}), 'batch.pairs')])
def test_what_may_be_wrong_is_told_with_its_setting(change, setting, opened):
  before = health.preflight(*opened).warnings
  new = [text for text in health.preflight(*changed(opened, **change)).warnings if text not in before]
  assert len(new) == 1 and setting in new[0], new


def test_padding_and_repetition_are_told(opened, config):
  program, [(phase, stream)] = opened
  longer = dataclasses.replace(phase, last=10**6)
  told = '\n'.join(health.preflight(program, [(longer, stream)]).warnings)
  assert 'run.steps' in told


@pytest.mark.parametrize('objective, pairs', [
    ('mlm_nsp', 'nsp'), ('mlm_sop', 'sop'), ('mlm', 'none'), ('left_to_right', 'none')])
def test_every_objective_is_looked_at(objective, pairs, data, config):
  batch = dataclasses.replace(config.batch, pairs=pairs)
  config = (recipes.left_to_right(config) if objective == 'left_to_right' else
            dataclasses.replace(config, objective=objective, batch=batch))
  found = health.preflight(program_lib.of(config, jax.devices()[:1]), phases.open_streams(data, config))
  assert len(found.lines) == 2 and ('negatives' in found.lines[1]) == (pairs != 'none'), found.lines


def figures(run: health.Bands, values, name: str, begin: int = 1000) -> list[str]:
  return [text for step, value in enumerate(values, begin) for text in run.look(step, {name: value})]


def bands(unigram: float = 6.8, rate: float = 5e3, warmup: int = 100, steps: int = 10**9) -> health.Bands:
  return health.Bands(health.Preflight([], [], unigram, ((0, rate),)), warmup, steps)


@pytest.mark.parametrize('name, values, said', [
    ('mlm_loss', [6.6] * 30, ''), ('mlm_loss', [4.9] * 30, ''),  # as the trials are
    ('mlm_loss', [9.0] * 30, 'does not learn'), ('mlm_loss', [0.5] * 30, 'give the answers away'),
    ('mlm_loss', [9.0] * 9, ''), ('mlm_loss', [6.6, 12.0, 6.6] * 9, ''),  # one line is no trend
    ('nsp_accuracy', [0.5, 0.61] * 15, ''), ('nsp_accuracy', [0.2] * 30, 'labels'),
    ('nsp_accuracy', [1.0] * 30, 'give the answers away'), ('loss', [99.0] * 30, '')])
def test_a_figure_outside_of_its_band_is_said_once(name, values, said):
  found = figures(bands(), values, name)
  assert len(found) == bool(said)
  assert all(said in text and 'million tokens' in text for text in found)


def test_nothing_is_said_before_the_warmup_or_of_few_tokens():
  assert figures(bands(warmup=100_000), [99.0] * 30, 'mlm_loss') == []
  assert figures(bands(rate=10.0), [99.0] * 30, 'mlm_loss') == []
  assert figures(bands(), [99.0] * 30, 'mlm_loss', begin=100_000)


@pytest.mark.parametrize('loss, begin, rate, said', [
    (6.79, 1_000, 5e3, True), (6.5, 1_000, 5e3, False), (6.79, 500, 5e3, False), (6.79, 1_000, 1.0, False)])
def test_a_loss_that_stays_at_the_baseline_is_said_once(loss, begin, rate, said):
  """Not before a tenth of the steps, nor of few tokens; of a loss that reads from left to right too."""
  for name in ('mlm_loss', 'lm_loss'):
    run = bands(rate=rate, steps=10_000)
    found = [text for text in figures(run, [loss] * 30, name, begin) if 'has not left this baseline' in text]
    assert len(found) == said and not figures(run, [loss] * 30, name, begin + 30)


def test_a_colleagues_warnings_name_what_to_set(opened, config):
  program, [(phase, stream)] = opened
  split, rows = stream.manifest.splits['train'], stream.rows_per_epoch
  say = lambda **changes: '\n'.join(health.warnings(phase.config.batch, split, **dict(
      unknown=0.0, padding=0.2, predicted=0.15, pairs=256, negatives=128, epochs=30.0, steps=300) | changes))
  usual = say()
  for changes, said in (
      (dict(epochs=60.0), 'lower --run.steps, to 200 for 40 times'),
      (dict(padding=0.7), '--batch.pack --batch.pairs-per-row 3'),
      (dict(negatives=10), '--objective mlm --batch.pairs none')):
    assert said not in usual and said in say(**changes), say(**changes)
  few = '\n'.join(health.dropout_warnings(config.model, 0.5))
  assert bool(few) == bool(config.model.hidden_dropout or config.model.attention_dropout)
  assert '--model.hidden-dropout 0' in '\n'.join(health.dropout_warnings(cfg.Model(), 0.5)) and rows
  assert not list(health.dropout_warnings(cfg.Model(), 40.0))
  assert not list(health.dropout_warnings(cfg.Model(hidden_dropout=0.0, attention_dropout=0.0), 0.5))


def test_tokens_are_counted_over_the_phases():
  run = health.Bands(health.Preflight([], [], 7.0, ((0, 10.0), (100, 40.0))), 0, 10**9)
  assert [run.tokens(step) for step in (0, 50, 100, 101, 200)] == [0, 500, 1000, 1040, 5000]


def test_a_run_says_it(data, config, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(health, 'GAIN', (health.Band(1, 3.0, 99.0),))  # what this one cannot reach
  monkeypatch.setattr(health, 'TENTH', 2.0)  # nor is the baseline looked at
  config = dataclasses.replace(config, run=dataclasses.replace(config.run, steps=14),
                               batch=dataclasses.replace(config.batch, size=16))
  result = train.train(config, data, tmp_path / 'run', devices=jax.devices()[:1])
  said = capsys.readouterr().err
  assert result.reason == 'steps' and said.count('does not learn as others do') == 1, said
  assert said.count(' GB of a device, as compiled') == 1
  assert 'every id within the vocabulary' in said and 'bert-jax: there are only 40 documents' in said
  assert len(metrics.read(tmp_path / 'run')) == 14


def test_a_compiled_step_that_does_not_fit_is_told(monkeypatch):
  monkeypatch.setattr(health, 'device_bytes', lambda device: 2 * 10**9)
  fits, does_not = (list(health.of_memory(size, jax.devices()[0])) for size in (10**9, 3 * 10**9))
  assert len(fits) == 1 and '1.00 GB of a device, as compiled, of 2.0 GB' in fits[0]
  assert 'run.microbatches' in does_not[1] and list(health.of_memory(None, jax.devices()[0])) == []
