"""What `model.unroll auto` and `model.dtype auto` become, by the platform and by what fits; and that a run keeps it."""

import dataclasses
import importlib.util
import json
import math
import types

import hypothesis
import hypothesis.strategies as st
import jax
import pytest

from bert_jax import (
    choices,
    compiled,
    config as cfg,
    health,
    program as program_lib,
    recipes,
    run_directory,
    train,
)
from bert_jax.model import settings
from bert_jax.tasks.settings import Finetune
from launch import cli
from launch.plan import topology
from tests import synthetic, test_run_directory

tpu = pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='needs the compiler in libtpu')
VOCABULARY = 64


def of(layers: int, **changes) -> cfg.Config:
  shape = dict(vocab_size=VOCABULARY, heads=2, max_positions=16, dtype='float32')
  model = recipes.model_of(layers, 16, **shape | changes)
  return cfg.Config(model=model, batch=cfg.BatchConfig(size=8, sequence_length=16, predictions=4),
                    optimizer=cfg.Optimizer(warmup_steps=1), run=cfg.Run(steps=2, log_every=1))


@pytest.mark.parametrize('layers,unroll,wanted', [(12, 'auto', 12), (13, 'auto', 1), (13, 3, 3), (2, 7, 2)])
def test_by_rule(layers, unroll, wanted):
  assert of(layers, unroll=unroll).model.layers_at_once == wanted
  settled = choices.settle(of(layers, unroll=unroll))
  assert settled.config.model.unroll == (wanted if unroll == 'auto' else unroll) and not settled.lines


@tpu
def test_on_tpu_all_layers_where_they_fit(monkeypatch):
  """By what TPU's compiler says of the step, for devices that say how much they have."""
  monkeypatch.setattr(settings, 'UNROLLED', 1)
  devices, config = topology.devices('v5e:2x2'), of(2)
  program = program_lib.of(choices.with_model(config, unroll=2), devices)
  needed = program.compile_step(program.abstract, choices.synthetic.abstract(config, program.mesh))
  with monkeypatch.context() as patch:
    patch.setattr(program_lib.Program, 'compile_step', lambda *_: needed)  # what it said
    for room, wanted, said in ((int(needed + 1.5e9), 2, 'all 2 unrolled, as unrolled leaves 1.5 GB'),
                               (int(needed + 0.9e9), 1, 'a loop, as unrolled leaves 0.9 GB'),
                               (needed - 1, 1, 'a loop, as unrolled does not fit')):
      patch.setattr(health, 'device_bytes', lambda device, room=room: room)
      settled = choices.settle(config, devices)
      assert settled.config.model.unroll == wanted and said in settled.lines[0], settled.lines
  monkeypatch.setattr(health, 'device_bytes', lambda device: 16e9)
  batch = dataclasses.replace(config.batch, size=2**22)
  settled = choices.settle(dataclasses.replace(config, batch=batch), devices)
  assert settled.config.model.unroll == 1 and 'does not fit' in settled.lines[0]


def test_a_run_keeps_what_it_chose(tmp_path, capsys):
  data = synthetic.write_data(tmp_path / 'data', vocabulary_size=VOCABULARY, pieces=60, documents=12,
                              sequence_length=16)
  run, config, one = tmp_path / 'run', of(2), jax.devices()[:1]
  train.train(config, data, run, devices=one, stop=lambda step: step == 1)
  said = lambda: json.loads((run / 'config.json').read_text())['config']['model']['unroll']
  assert said() == 2
  loop = dataclasses.replace(config, model=dataclasses.replace(config.model, unroll=1))
  assert choices.settle(config, one, run).config.model.unroll == 2
  assert choices.settle(loop, one, run).config.model.unroll == 1
  train.train(loop, data, run, devices=one)
  assert 'model.unroll was 2 and is 1: the last bits may differ' in capsys.readouterr().err and said() == 2


# ---------------------------------------------------------------- run.microbatches


@hypothesis.given(rows=st.integers(1, 4096), state=st.integers(0, 10**6), row=st.integers(1, 10**4),
                  own=st.integers(0, 10**6), room=st.integers(1, 10**8), refuses=st.booleans())
def test_as_few_microbatches_as_fit(rows, state, row, own, room, refuses):
  """Of a step that takes its state, something for more than one part, and so much a row; or that is refused."""
  tried = []

  def needed(count):
    tried.append(count)
    takes = state + row * rows // count + (own if count > 1 else 0)
    return math.inf if refuses and takes > room else takes

  possible = [count for count in range(1, rows + 1) if rows % count == 0]
  count, takes = choices.fewest(possible, needed, room, state)
  fitting = [other for other in possible if state + row * rows // other + (own if other > 1 else 0)
             <= room * choices.FILLED]
  if own == 0 or count == 1 or not fitting:
    assert count == (min(fitting) if fitting else possible[-1])
  assert (takes <= room * choices.FILLED) == (count in fitting) and len(set(tried)) == len(tried)
  assert len(tried) <= len(possible).bit_length() + 2 or len(tried) <= 6


def test_pretraining_takes_as_few_microbatches_as_fit_and_keeps_them(tmp_path, monkeypatch, capsys):
  data = synthetic.write_data(tmp_path / 'data', vocabulary_size=VOCABULARY, pieces=60, documents=12,
                              sequence_length=16)
  config, one = choices.with_microbatches(of(1), 'auto'), jax.devices()[:1]
  whole, halves = (choices.needed_bytes(choices.with_microbatches(config, count), one) for count in (1, 2))
  assert 0 < halves < whole
  monkeypatch.setattr(choices, 'needed_bytes', lambda config, _: whole if config.run.parts == 1 else halves)
  monkeypatch.setattr(health, 'device_bytes', lambda device: (whole + halves) / 2 / choices.FILLED)
  run = tmp_path / 'run'
  train.train(config, data, run, devices=one, stop=lambda step: step == 1)
  said = lambda: json.loads((run / 'config.json').read_text())['config']['run']['microbatches']
  assert said() == 2 and 'microbatches: 2, as a step takes 0.00 GB of 0.00 GB so (run.microbatches auto)' in (
      capsys.readouterr().err)
  monkeypatch.setattr(health, 'device_bytes', lambda device: 1e12)
  assert choices.settle(config, one, run).config.run.microbatches == 2
  assert choices.settle(choices.with_microbatches(config, 4), one, run).config.run.microbatches == 4
  assert choices.settle(config, one).config.run.microbatches == 1
  monkeypatch.setattr(health, 'device_bytes', lambda device: halves / 100)
  settled = choices.settle(config, one)
  assert settled.config.run.microbatches == 8 and 'does not fit, and no more are possible' in settled.lines[0]
  monkeypatch.setattr(health, 'device_bytes', lambda device: None)
  settled = choices.settle(config, one)
  assert settled.config.run.microbatches == 1 and 'nothing tells how much memory a cpu has' in settled.lines[0]


def test_microbatches_are_chosen_of_those_that_divide():
  config = choices.with_microbatches(of(1), 'auto')
  longer = dataclasses.replace(config, long=cfg.Long(share=0.5, sequence_length=16, predictions=4, size=12),
                               batch=dataclasses.replace(config.batch, size=8, sequence_length=8))
  assert choices.possible_microbatches(config, jax.devices()[:1]) == [1, 2, 4, 8]
  assert choices.possible_microbatches(config, jax.devices()[:4]) == [1, 2]
  assert choices.possible_microbatches(longer, jax.devices()[:1]) == [1, 2, 4]
  many = dataclasses.replace(config, batch=dataclasses.replace(config.batch, size=24))
  assert choices.possible_microbatches(many, jax.devices()[:8]) == [1, 3]  # two would be filled up to four
  many = dataclasses.replace(config, batch=dataclasses.replace(config.batch, size=32))
  assert choices.possible_microbatches(many, jax.devices()[:6]) == [1, 2, 4, 8]  # 6 rows, 3, 2 and 1 at a time


def test_a_task_wants_a_number_of_microbatches():
  with pytest.raises(cfg.ConfigError, match='run.microbatches auto is for pretraining: wanted a number'):
    Finetune(run=cfg.Run(microbatches='auto'))


# ---------------------------------------------------------------- model.dtype


@pytest.mark.parametrize('platform,capability,wanted', [
    ('tpu', None, 'bfloat16'), ('gpu', '9.0', 'bfloat16'), ('gpu', '8.0', 'bfloat16'), ('gpu', '7.5', 'float32'),
    ('gpu', '10.0', 'bfloat16'), ('gpu', 'gfx90a', 'bfloat16'), ('cpu', None, 'float32')])
def test_the_type_by_rule(platform, capability, wanted):
  device = types.SimpleNamespace(platform=platform, device_kind='card', compute_capability=capability)
  assert choices.dtype_by_rule([device]) == wanted
  if platform != 'cpu':
    chosen, lines = choices.choose_dtype(of(1, dtype='auto'), [device])
    assert chosen == wanted and lines == (f'computes in {wanted}: card (model.dtype auto)',)


def test_a_cpu_without_products_of_16_bits_tries_nothing(monkeypatch):
  monkeypatch.setattr(compiled, 'cpu', lambda: ['flags : fpu sse avx2'])
  monkeypatch.setattr(choices, 'trial', None)
  settled = choices.settle(of(2, dtype='auto'))
  assert settled.config.model.dtype == 'float32' and 'a CPU that does not multiply 16 bits' in settled.lines[0]


@pytest.fixture
def tries(monkeypatch, tmp_path):
  """[seconds of each type]: what trials find, on a CPU that has both; a place where they are kept."""
  found = []
  monkeypatch.setattr(compiled, 'cpu', lambda: ['flags : avx512f avx512_bf16'])
  monkeypatch.setattr(choices, 'trial', lambda *_: found.append(1) or dict(float32=1.0, bfloat16=0.9))
  monkeypatch.delenv(compiled.OWN)
  with compiled.kept(tmp_path / 'kept'):
    yield found


def test_a_trial_decides_and_is_kept(tries, tmp_path):
  first, again = choices.settle(of(2, dtype='auto')), choices.settle(of(2, dtype='auto'))
  assert first == again and first.config.model.dtype == 'bfloat16' and len(tries) == 1
  assert first.lines == ('computes in bfloat16: float32 1e+03 ms, bfloat16 900 ms for a step of one layer (model.dtype '
                         'auto)',)
  choices.settle(of(3, dtype='auto'))
  assert len(tries) == 2
  for content in ('', '[]', '{"float32": 1}', '{"float32": "x", "bfloat16": 2}'):
    for file in (tmp_path / 'kept' / choices.TRIALS).iterdir():
      file.write_text(content)
    before = len(tries)
    assert choices.settle(of(2, dtype='auto')) == first and len(tries) == before + 1


def test_a_trial_without_room_leaves_it_to_the_run(tries, tmp_path, monkeypatch):
  def trial(*_):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 70650692928 bytes.')
  monkeypatch.setattr(choices, 'trial', trial)
  settled = choices.settle(of(2, dtype='auto'))
  assert settled.config.model.dtype == 'float32' and 'a trial has no room' in settled.lines[0]
  assert not list((tmp_path / 'kept').rglob('*.json'))


@pytest.mark.parametrize('size', [8, 1 << 30], ids=['a small batch', 'a batch that fits nowhere'])
def test_a_real_trial_runs_both_types(monkeypatch, size):
  monkeypatch.setattr(choices, 'TRIAL_SECONDS', 0.01)
  config = of(2)
  config = dataclasses.replace(config, batch=dataclasses.replace(config.batch, size=size))
  seconds = choices.trial(config, jax.devices())
  assert seconds.keys() == {'float32', 'bfloat16'} and all(0 < value < 60 for value in seconds.values())


def test_a_run_keeps_its_type(tries, tmp_path):
  run = tmp_path / 'run'
  run_directory.open_run(run, run_directory.Record(of(2, dtype='bfloat16'), 'data', test_run_directory.VOCABULARY), {})
  assert choices.settle(of(2, dtype='auto'), None, run).config.model.dtype == 'bfloat16' and not tries


def test_a_plan_shows_both(capsys):
  flags = ['plan', 'tiny', *('--model.dtype float32 --model.vocab-size 64 --model.hidden-size 16 --model.heads 2 '
           '--model.intermediate-size 16 --batch.sequence-length 16 --batch.predictions 4 --batch-per-chip 2').split(),
           '--cache', 'off']
  assert cli.run([*flags, '--json']) == 0
  printed = json.loads(capsys.readouterr().out)
  assert (printed['unroll'], printed['otherwise']['unroll']) == (2, 1)
  assert cli.run([*flags, '--model.unroll', '1', '--json']) == 0
  alone = json.loads(capsys.readouterr().out)
  assert alone['otherwise'] is None and alone['temporary_bytes'] == printed['otherwise']['temporary_bytes']
  assert cli.run(flags) == 0
  assert 'layers         2 layers unrolled (model.unroll auto); a loop over layers: step' in capsys.readouterr().out
