"""Fine-tuning and warm starts: what is learnt, resumed and evaluated, and which parameters a run begins with."""

import dataclasses
import hashlib
import json
import random
import shutil

import jax
import numpy as np
import pytest

from bert_jax import (
  checkpoint,
  config as cfg,
  examples,
  finetune,
  metrics,
  predict,
  program as program_lib,
  run_directory,
  sweep,
  train,
)
from bert_jax.errors import ConfigError, DriftError
from bert_jax.tasks import showing
from bert_jax.tasks.sentences import Example
from bert_jax.tasks.settings import Files, Finetune, Grid, TaskBatch
from bert_jax.tasks.table import TASKS
from input_pipeline import records
from input_pipeline.vocabulary import tokenizer as tokenizer_lib
from tests import synthetic, test_distributed

GOOD, BAD = 'sun rose milk song'.split(), 'rain mud tar noise'.split()
TOKENS = [*synthetic.SPECIALS, *GOOD, *BAD, 'and', 'the', *(f'##{c}' for c in 'abcdefgh'), *'abcdefgh']
EXAMPLES, HELD_OUT = 80, 37  # 37: no batch size divides it


def write_vocabulary(data) -> None:
  """Puts words in place of the made-up tokens, so that text can be encoded."""
  text = '\n'.join(TOKENS) + '\n'
  (data / records.VOCABULARY).write_text(text)
  sha256 = hashlib.sha256(text.encode()).hexdigest()
  synthetic.rewrite_manifest(data, lambda fields: fields['vocabulary'].update(sha256=sha256))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  directory = tmp_path_factory.mktemp('finetune') / 'data'
  data = synthetic.write_data(directory, vocabulary_size=len(TOKENS), pieces=100, documents=20, sequence_length=32)
  write_vocabulary(data)
  return data


@pytest.fixture(scope='module')
def pretraining():
  return cfg.Config(
      model=cfg.Model(vocab_size=len(TOKENS), hidden_size=32, layers=2, heads=2, intermediate_size=64,
                      max_positions=64, dtype='float32'),
      batch=cfg.BatchConfig(size=8, sequence_length=32, predictions=5), mesh=cfg.MeshShape(data=1),
      optimizer=cfg.Optimizer(peak_learning_rate=1e-3, warmup_steps=2),
      run=cfg.Run(steps=4, checkpoint_every=2, seed=7))


def pretrain(config, data, run_dir, **settings):
  return train.train(config, data, run_dir, devices=jax.devices()[:1], engine='threads', progress=False, **settings)


@pytest.fixture(scope='module')
def pretrained(data, pretraining, tmp_path_factory):
  run_dir = tmp_path_factory.mktemp('pretrained') / 'run'
  pretrain(pretraining, data, run_dir)
  return run_dir


def text_of(draw: random.Random, good: int) -> str:
  """Six words, so many of which are good."""
  words = draw.choices(GOOD, k=good) + draw.choices(BAD, k=6 - good) + ['and', 'the']
  return ' '.join(draw.sample(words, len(words)))


def write_task(directory, example):
  """train.jsonl and validation.jsonl of `example(draw)`."""
  draw = random.Random(0)
  directory.mkdir()
  for name, count in (('train.jsonl', EXAMPLES), ('validation.jsonl', HELD_OUT)):
    (directory / name).write_text(''.join(json.dumps(example(draw)) + '\n' for _ in range(count)))
  return directory


@pytest.fixture(scope='module')
def classes(tmp_path_factory):
  """Texts all of whose words are good, or bad; every third is a pair."""
  def example(draw):
    label = draw.choice(['good', 'bad'])
    fields = {'text': text_of(draw, 6 if label == 'good' else 0), 'label': label}
    return fields | ({'text_pair': text_of(draw, 6 if label == 'good' else 0)} if draw.random() < 1 / 3 else {})
  return write_task(tmp_path_factory.mktemp('classes') / 'task', example)


@pytest.fixture(scope='module')
def numbers(tmp_path_factory):
  """The number of good words in a text."""
  def example(draw):
    good = draw.randint(0, 6)
    return {'text': text_of(draw, good), 'label': good / 2}
  return write_task(tmp_path_factory.mktemp('numbers') / 'task', example)


def settings(task='classification'):
  """Dropout, microbatches, an epoch that no batch ends with, and a log line that no stop falls on."""
  return Finetune(task=task, epochs=12, batch=TaskBatch(size=12, max_length=24, lengths=2), mesh=cfg.MeshShape(data=1),
                  model=cfg.Model(dtype='float32', hidden_dropout=.1, attention_dropout=.1),
                  optimizer=cfg.Optimizer(name='adamw', schedule='linear', peak_learning_rate=3e-3, warmup_steps=4),
                  run=cfg.Run(microbatches=2, log_every=9, checkpoint_every=40, evaluate_every=40, keep_checkpoints=1,
                              seed=3))


def tune(config, task, run_dir, checkpoint_path=None, stop_at=None):
  return finetune.finetune(config, task, run_dir, checkpoint_path, devices=jax.devices()[:1], progress=False,
                           stop=lambda step: step == stop_at)


@pytest.fixture(scope='module')
def tuned(pretrained, classes, tmp_path_factory):
  run_dir = tmp_path_factory.mktemp('tuned') / 'run'
  return run_dir, *tune(settings(), classes, run_dir, pretrained)


def assert_equal(a, b):
  jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


def told(run_dir):
  """The log, less what the clock says."""
  timed = 'tokens_per_second', 'steps_per_second', 'data_stall_share', 'minutes', 'time'
  return [{name: value for name, value in line.items() if name not in timed} for line in metrics.read(run_dir)]


def test_a_task_whose_classes_can_be_told_apart_is_learnt(tuned, pretrained, classes):
  run_dir, result, figures = tuned
  assert result.reason == 'steps' and result.step == 84  # 12 epochs of 80 in 7 batches of up to 12
  assert figures['accuracy'] == figures['task_accuracy'] == 1 and figures['examples'] == HELD_OUT
  assert run_directory.figures(run_dir) == figures | {run_directory.COPIES: 0.0}
  record = run_directory.read(run_dir)
  assert record.kind == 'finetuned' and record.config.labels == ('bad', 'good')
  assert record.config.model.hidden_size == 32
  assert record.origin.checkpoint == str(pretrained) and record.origin.step == 4
  assert record.origin.fresh and all(name.startswith('classifier/') for name in record.origin.fresh)
  again = finetune.evaluate(run_dir, progress=False)
  assert again == pytest.approx(figures, abs=1e-6)
  assert finetune.evaluate(run_dir, classes / 'validation.jsonl', progress=False) == again


def test_fine_tuning_begins_with_the_encoder_and_the_pooler_of_the_checkpoint(pretrained, classes, tmp_path):
  result, _ = tune(settings(), classes, tmp_path / 'run', pretrained, stop_at=0)
  theirs = checkpoint.load(pretrained).params
  for part in ('encoder', 'pooler'):
    assert_equal(result.state.params[part], theirs[part])
  assert np.any(result.state.params['classifier']['dense']['kernel'])


def test_stopped_and_resumed_it_is_the_undisturbed_run(tuned, pretrained, classes, tmp_path):
  run_dir, whole, _ = tuned
  assert tune(settings(), classes, tmp_path / 'run', pretrained, stop_at=23)[0].reason == 'signal'
  resumed, figures = tune(settings(), classes, tmp_path / 'run')  # no checkpoint is named any more
  assert (resumed.resumed_from, resumed.step) == (23, whole.step)
  assert_equal(resumed.state, whole.state)
  assert told(tmp_path / 'run') == told(run_dir) and (
      figures | {run_directory.COPIES: 0.0} == run_directory.figures(run_dir))


def test_the_best_checkpoint_is_kept_beside_the_newest_and_is_the_one_that_is_used(tuned, tmp_path):
  run_dir, result, figures = tuned
  step, accuracy = metrics.best(run_dir, 'accuracy')
  assert result.best == (step, accuracy) and figures['step'] == step == 40 and accuracy == 1  # the first of the best
  kept = {path.name for path in (run_dir / run_directory.CHECKPOINTS).iterdir()}
  assert kept == {'40', '84'} and checkpoint.load(run_dir).step == 40 and checkpoint.load(run_dir, 84).step == 84
  held_out = [line['step'] for line in metrics.read(run_dir) if line['kind'] == 'validation']
  assert held_out == [40, 80, 84]  # the last one, too
  damaged = shutil.copytree(run_dir, tmp_path / 'run')
  shutil.rmtree(damaged / run_directory.CHECKPOINTS / '40' / 'state')
  assert checkpoint.load(damaged).step == 84


def test_a_run_answers_examples_without_labels(tuned, tmp_path):
  run_dir, *_ = tuned
  lines = [{'text': 'sun rose and milk'}, {'text': 'the tar', 'text_pair': 'rain and mud noise'}, {'text': 'song'}]
  (tmp_path / 'texts.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
  assert predict.predict(run_dir, tmp_path / 'texts.jsonl', 'test', tmp_path / 'answers', progress=False) == 3
  answers = [json.loads(line) for line in (tmp_path / 'answers' / predict.PREDICTIONS).read_text().splitlines()]
  assert [(answer['example'], answer['label']) for answer in answers] == [(0, 'good'), (1, 'bad'), (2, 'good')]
  assert all(sum(answer['probabilities'].values()) == pytest.approx(1) for answer in answers)
  shown = showing.shown(TASKS['classification'], [Example('a b', None, 'bad'), Example('c', None, 'good')] * 9,
                        [{'label': 'bad'}] * 18)
  assert 'right: 9 of 18' in shown and 'a b\n    bad\n' in shown and '    bad, wanted good\n' in shown
  assert shown.splitlines()[-2:] == ['bad          9         18        9', 'good         9          0        0']


@pytest.mark.parametrize('change', [
    lambda text: text[:50], lambda text: '', lambda text: '[' * 100_000, lambda text: '[]', lambda text: '{}',
    lambda text: text.replace('"best": "seed-1"', '"best": "../other"'), lambda text: text.replace('0.5', '"much"'),
    lambda text: text.replace('"runs": {', '"runs": {"seed-3": 3, ')])
def test_damaged_results_of_a_sweep_are_said_to_be(tmp_path, change):
  done = {'seed-1': sweep.Done({'accuracy': 0.5, 'f1': float('nan')}, None), 'seed-2': sweep.Done({'accuracy': 0}, 1.5)}
  sweep.write(tmp_path, {'task': 'x'}, done, 'seed-1')
  assert sweep.read(tmp_path, {'task': 'x'})['seed-2'] == done['seed-2']
  assert sweep.best_of(tmp_path) == str(tmp_path / 'seed-1')
  (tmp_path / sweep.RESULTS).write_text(change((tmp_path / sweep.RESULTS).read_text()))
  for reader in (lambda: sweep.read(tmp_path, {'task': 'x'}), lambda: sweep.best_of(tmp_path)):
    with pytest.raises(cfg.ConfigError, match='results.json is damaged'):
      reader()


def test_seeds_and_a_grid_share_a_program_and_go_on_where_they_stopped(pretrained, classes, tmp_path):
  config = Finetune(epochs=1, batch=TaskBatch(size=16, max_length=24, lengths=1), mesh=cfg.MeshShape(data=1),
                    model=cfg.Model(dtype='float32'), files=Files(train_examples=40))
  grid = Grid(rates=(1e-3, 1e-2))
  run = lambda stop=None: sweep.sweep(config, classes, tmp_path / 'runs', pretrained, grid=grid, seeds=2,
                                      devices=jax.devices()[:1], progress=False, stop=stop)
  begun = iter([0, 0, 0, 1])
  stopped = run(lambda step: step == 1 and next(begun) == 1)  # in the fourth run
  assert stopped.reason == 'signal' and stopped.report is None
  done = run()
  assert done.tuned.resumed_from == 1 and done.reason == 'steps'
  report = done.report
  assert (report['task'], report['seeds'], len(report['grid']), len(report['runs'])) == ('classification', 2, 2, 4)
  for point, rate in zip(report['grid'], ('0.001', '0.01')):
    values = [report['runs'][f'rate-{rate}-batch-16-epochs-1/seed-{seed}']['metrics']['accuracy'] for seed in (1, 2)]
    assert point['metrics']['accuracy'] == {
        'mean': np.mean(values), 'std': pytest.approx(np.std(values, ddof=1)), 'best': max(values)}
  best = run_directory.read(report['best']).config
  assert report['metrics'] == max((point['metrics'] for point in report['grid']), key=lambda m: m['accuracy']['mean'])
  assert run_directory.figures(report['best'])['accuracy'] == report['metrics']['accuracy']['best']
  assert best.run.steps == 3 and best.optimizer.warmup_steps == 0 and '±' in sweep.table(report)
  assert run().tuned is None and run().report == report  # nothing is made again
  assert sweep.best_of(tmp_path / 'runs') == report['best'] and sweep.best_of(pretrained) == pretrained
  (tmp_path / 'runs').rename(tmp_path / 'moved')  # the best run goes along
  assert run_directory.read(sweep.best_of(tmp_path / 'moved')).config == best
  (tmp_path / 'moved').rename(tmp_path / 'runs')
  with pytest.raises(DriftError, match='files.train_examples: 40 -> 50'):
    sweep.sweep(dataclasses.replace(config, files=Files(train_examples=50)), classes, tmp_path / 'runs', pretrained,
                grid=grid, seeds=2, devices=jax.devices()[:1], progress=False)
  job = finetune.prepare(config, classes, pretrained, tmp_path / 'none', jax.devices()[:1])
  assert not (tmp_path / 'none').exists()
  for seed, rate in ((1, 1e-3), (2, 1e-2)):
    one = dataclasses.replace(job.config, run=dataclasses.replace(job.config.run, seed=seed),
                              optimizer=dataclasses.replace(job.config.optimizer, peak_learning_rate=rate))
    finetune.run(job, one, tmp_path / f'run-{seed}', progress=False)
  assert job.program.paced_step._cache_size() == job.program.evaluation_step._cache_size() == 1


@pytest.mark.parametrize('size', [1, 8, 37, 64])
def test_an_evaluation_reads_every_example_once_whatever_the_batches(tuned, classes, size):
  run_dir, _, figures = tuned
  loaded = checkpoint.load(run_dir)
  run = dataclasses.replace(loaded.record.config.run, microbatches=1)
  config = dataclasses.replace(loaded.record.config, run=run, batch=TaskBatch(size, 24))
  split = examples.split_of(config, examples.read(config, classes, 'validation'), loaded.tokenizer())
  numbers, batches = zip(*split.batches(config).once())
  assert {len(x) for batch in batches for x in batch.values()} == {size}
  assert sorted(np.concatenate(numbers)) == list(range(HELD_OUT))
  for members, batch in zip(numbers, batches):
    assert list(batch['weight']) == [1] * len(members) + [0] * (size - len(members))
    for i, number in enumerate(members):
      row = split.rows[number]
      assert batch['label'][i] == row.targets['label'] and batch['pair_ids'][i].sum() == len(row.input_ids)
      np.testing.assert_array_equal(batch['input_ids'][i, :len(row.input_ids)], row.input_ids)
  found = split.answer(program_lib.on_one_device(config), loaded.params, config).figures
  wanted = {name: value for name, value in figures.items() if name not in ('examples', 'step')}
  assert found == pytest.approx(wanted, abs=1e-6)


def test_processes_share_out_an_evaluation_and_an_epoch(classes, pretrained):
  tokenizer = tokenizer_lib.load(pretrained, lower_case=True)
  config = dataclasses.replace(settings(), labels=('bad', 'good'), batch=TaskBatch(size=8, max_length=24))
  split = examples.split_of(config, examples.read(config, classes, 'validation'), tokenizer)
  joined = lambda parts: {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  alone, parts = split.batches(config), [split.batches(config, (), index, 4) for index in range(4)]
  for (members, batch), *others in zip(alone.once(), *(part.once() for part in parts), strict=True):
    assert all(list(numbers) == list(members) for numbers, _ in others)
    assert_equal(joined([part for _, part in others]), batch)
  for step in (0, 4, 100):
    assert_equal(joined([part.batch(step) for part in parts]), alone.batch(step))
  orders = [np.concatenate([alone.members(epoch * 5 + step) for step in range(5)]) for epoch in range(8)]
  assert alone.steps == 5 and all(sorted(order) == list(range(HELD_OUT)) for order in orders)
  assert (orders[0] != orders[1]).any()


@pytest.mark.slow
def test_two_processes_and_eight_devices_tune_as_one(pretrained, classes, tmp_path):
  """Several seeds, a last batch that is not full, dropout: the same losses and figures at every step."""
  config = Finetune(epochs=2, batch=TaskBatch(size=16, max_length=24), run=cfg.Run(log_every=1),
                    model=cfg.Model(dtype='float32'), optimizer=cfg.Optimizer(peak_learning_rate=3e-3, warmup_steps=2))
  flags = ['--epochs', 2, '--batch.size', 16, '--batch.max-length', 24, '--run.log-every', 1, '--model.dtype',
           'float32', '--optimizer.peak-learning-rate', 3e-3, '--optimizer.warmup-steps', 2, '--seeds', 2]
  command = ['finetune', 'classification', '--data', classes, '--checkpoint', pretrained, '--run-dir', tmp_path / 'two']
  port = test_distributed.free_port()
  ended = test_distributed.ends([test_distributed.launch([*command, *flags], number, port) for number in range(2)])
  assert [code for code, _ in ended] == [0, 0], ended
  for name, devices in (('one', jax.devices()[:1]), ('eight', jax.devices())):
    sweep.sweep(config, classes, tmp_path / name, pretrained, seeds=2, devices=devices, progress=False)
  for seed in ('seed-1', 'seed-2'):
    alone, *others = [metrics.read(tmp_path / name / seed) for name in ('one', 'two', 'eight')]
    assert len(alone) > 10
    for lines in others:
      assert [(line['step'], line['kind']) for line in lines] == [(line['step'], line['kind']) for line in alone]
      for a, b in zip(lines, alone):
        assert abs(a['loss'] - b['loss']) < 1e-5 and a['task_accuracy'] == b['task_accuracy']
  assert sweep.best_of(tmp_path / 'two') == str(tmp_path / 'two' / sweep.best_of(tmp_path / 'one')[-6:])


def test_regression_keeps_its_predictions(pretrained, numbers, tmp_path):
  config = dataclasses.replace(settings('regression'), epochs=40)
  _, figures = tune(config, numbers, tmp_path / 'run', pretrained)
  assert figures['pearson'] > .97 and figures['task_loss'] < .1 and 'task_accuracy' not in figures
  loaded = checkpoint.load(tmp_path / 'run')
  config = loaded.record.config
  split = examples.split_of(config, examples.read(config, numbers, 'validation'), loaded.tokenizer())
  answers = split.answer(program_lib.on_one_device(config), loaded.params, config).answers
  predictions, labels = [answer['label'] for answer in answers], [example.label for example in split.examples]
  assert len(predictions) == HELD_OUT
  assert figures['pearson'] == pytest.approx(np.corrcoef(predictions, labels)[0, 1], abs=1e-5)
  assert figures['task_loss'] == pytest.approx(np.square(np.subtract(predictions, labels)).mean(), rel=1e-4)


def test_what_is_another_run_is_refused(tuned, pretrained, classes, tmp_path):
  run_dir, *_ = tuned
  with pytest.raises(DriftError, match='epochs: 12 -> 13'):
    tune(dataclasses.replace(settings(), epochs=13), classes, run_dir)
  with pytest.raises(DriftError, match='a pretrained run -> finetuned'):
    tune(settings(), classes, pretrained, run_dir)
  with pytest.raises(ConfigError, match='--checkpoint'):
    tune(settings(), classes, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


# ---------------------------------------------------------------- pretraining that goes on from a checkpoint


def other(config):
  """Another length, batch and optimizer on the same model."""
  return dataclasses.replace(
      config, batch=dataclasses.replace(config.batch, size=4, sequence_length=16, predictions=3),
      optimizer=cfg.Optimizer(name='lamb', peak_learning_rate=1e-3, warmup_steps=2),
      run=dataclasses.replace(config.run, seed=8, steps=6))


@pytest.fixture(scope='module')
def short_data(tmp_path_factory):
  directory = tmp_path_factory.mktemp('short') / 'data'
  data = synthetic.write_data(directory, vocabulary_size=len(TOKENS), pieces=100, documents=20, sequence_length=16)
  write_vocabulary(data)
  return data


@pytest.mark.parametrize('step', [None, 2])
def test_a_run_begins_with_the_parameters_of_another_bit_for_bit(pretrained, pretraining, short_data, tmp_path, step):
  source = pretrained if step is None else pretrained / run_directory.CHECKPOINTS / str(step)
  begin = lambda **more: pretrain(other(pretraining), short_data, tmp_path / 'run', stop=lambda step: step == 0, **more)
  result = begin(initialize_from=source)
  wanted = checkpoint.load(source)
  assert result.step == 0 and wanted.step == (step or 4)
  assert_equal(result.state.params, wanted.params)
  assert not any(np.any(x) for x in jax.tree.leaves(result.state.opt_state[0]))
  assert run_directory.read(tmp_path / 'run').origin == run_directory.Origin(str(source), step or 4, ())
  assert_equal(begin().state.params, wanted.params)  # nothing was saved: it begins again, with the same
  on = pretrain(other(pretraining), short_data, tmp_path / 'run')
  assert on.step == 6 and np.any(np.asarray(jax.tree.leaves(on.state.params)[0]) != jax.tree.leaves(wanted.params)[0])
  with pytest.raises(DriftError, match='initialize-from'):
    begin(initialize_from=tmp_path)


def test_a_checkpoint_that_does_not_fit_is_refused_by_name(pretrained, pretraining, short_data, tmp_path):
  wide = dataclasses.replace(pretraining, model=dataclasses.replace(pretraining.model, hidden_size=64, layers=1))
  with pytest.raises(ConfigError, match='model.hidden_size 32'):
    pretrain(other(wide), short_data, tmp_path / 'run', initialize_from=pretrained)
  assert not (tmp_path / 'run').exists()
