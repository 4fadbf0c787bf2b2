"""The benchmark of the step: turns are timed as said, figures belong together, and the peer does the same work."""

import dataclasses
import json
import math
import sys

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import parameters
import pytest

from bert_jax import chips, choices, config as cfg, synthetic
from bert_jax.benchmark import huggingface, padded, peers, step, turns
from launch import cli
from launch.plan import times
from tests import synthetic as shards

ALONE = '--distributed.no-auto'


def one_device(config, **changes):
  return step.measure(config, rounds=2, seconds=0.05, warmup=1, devices=jax.devices()[:1], **changes)


@pytest.mark.parametrize('ahead', [False, True])
def test_a_turn_counts_all_steps_but_its_first(monkeypatch, ahead):
  """On a clock that only steps move, by 1 second each: `ahead`, where one waits for the device, else at once."""
  clock, events = [0.0], []
  monkeypatch.setattr(turns.time, 'perf_counter', lambda: clock[0])

  def launch(index):
    events.append(('launch', index))
    clock[0] += 0 if ahead else 1
    return index

  def finish(index):
    events.append(('finish', index))
    clock[0] += 1 if ahead else 0

  turn = turns.take(launch, finish, [(10, 1), (20, 2), (30, 3)], 7.0, ahead)
  assert turn.seconds == [1.0] * len(turn.seconds) and 7 <= len(turn.seconds) <= 9
  counted = [1, 2, 0, 1, 2, 0, 1, 2, 0][:len(turn.seconds)]  # batch 0 was the first, which is not
  assert turn.tokens == sum(10 * (i + 1) for i in counted) and turn.sequences == sum(i + 1 for i in counted)
  assert [i for name, i in events if name == 'launch'] == [i for name, i in events if name == 'finish'] == [0, *counted]
  assert events[2:4] == ([('launch', 1), ('launch', 2)] if ahead else [('launch', 1), ('finish', 1)])


def test_a_turn_has_some_steps_however_long_they_take():
  assert len(turns.take(lambda i: i, lambda i: None, [(1, 1)], 0.0, ahead=False).seconds) == turns.LEAST
  assert len(turns.take(lambda i: i, lambda i: None, [(1, 1)], 0.0, ahead=True, least=1).seconds) == 1


@pytest.fixture(scope='module')
def report(tiny):
  return one_device(tiny)


def test_figures_belong_together(report, tiny):
  B, T = tiny.batch.size, tiny.batch.sequence_length
  assert {'sequences_per_second', 'tokens_per_second', 'real_token_share', 'step_seconds', 'mfu'} <= set(report)
  assert report['real_token_share'] == 1 and report['mfu'] is None  # nobody knows a CPU's peak
  assert report['tokens_per_second'] == pytest.approx(T * report['sequences_per_second'])
  seconds = report['step_seconds']
  assert 0 < seconds['min'] <= seconds['median'] <= seconds['max']
  assert seconds['min'] <= B / report['sequences_per_second'] <= seconds['max']
  assert report['rounds'] == 2 and report['steps'] >= 2 * turns.LEAST
  params = sum(x.size * 4 for x in jax.tree.leaves(parameters.random(tiny.model)))
  assert 3 * params < report['argument_bytes'] < 3 * params + 100_000 and report['temporary_bytes'] > 0
  assert report['peak_rss_bytes'] > 1e8 and report['compile_seconds'] > 0
  assert cfg.from_json(cfg.Config, json.loads(json.dumps(report))['config']) == choices.settle(tiny).config


def test_the_estimate_of_the_program_stands_beside_its_time(tiny, monkeypatch):
  """On a chip that is known: by the roofline as if the CPU were a GPU that moves 2 bytes a second."""
  gpu = dataclasses.replace(chips.GPUS['h100'], memory_rate=2.0)
  monkeypatch.setitem(chips.CHIPS, 'cpu', gpu)
  report = one_device(tiny, estimate=times.estimated)
  assert report['estimated_step_seconds'] > report['argument_bytes'] / 2  # all of the state is read
  assert report['times_the_estimate'] == pytest.approx(
      report['step_seconds']['median'] / report['estimated_step_seconds'])
  assert 0 < report['mfu'] < 1


def test_real_rows_are_counted_without_their_padding(tiny, tmp_path):
  data = shards.write_data(tmp_path, pieces=400, documents=40, sequence_length=16, vocabulary_size=64)
  packed = dataclasses.replace(tiny, batch=dataclasses.replace(tiny.batch, pack=True, pairs_per_row=3))
  loose, full = (one_device(config, data_dir=data) for config in (tiny, packed))
  assert .3 < loose['real_token_share'] < full['real_token_share'] <= 1


@hypothesis.given(st.integers(1, 40), st.integers(8, 600), st.integers(2, 16), st.integers(0, 2**32 - 1))
def test_synthetic_pairs_share_rows_as_the_loader_packs_them(rows, length, pairs, seed):
  batch = synthetic.packed(64, rows, length, 4, pairs, seed)
  ids, T = batch['pair_ids'], np.arange(length)
  assert ids.shape == (rows, length) and 1 <= ids.max(1).min() and ids.max() <= pairs
  real = ids > 0
  assert (np.diff(real.astype(int), axis=1) <= 0).all() and (np.diff(np.where(real, ids, pairs + 1), axis=1) >= 0).all()
  slots = np.arange(1, pairs + 1) <= ids.max(1)[:, None]
  assert (slots == (batch['next_sentence_weights'] > 0)).all() and not batch['cls_positions'][~slots].any()
  row, slot = np.nonzero(slots)
  begins = batch['cls_positions'][row, slot]
  assert (ids[row, begins] == slot + 1).all() and not batch['position_ids'][row, begins].any()
  assert (batch['position_ids'] == np.where(real, T - np.take_along_axis(
      batch['cls_positions'], np.maximum(ids - 1, 0), 1), 0)).all()
  assert set(map(len, map(set, batch['masked_lm_positions'].tolist()))) <= {4}
  assert not np.isin(batch['masked_lm_positions'][batch['masked_lm_weights'] > 0], 0).any()


def test_synthetic_pairs_are_as_long_as_wikipedias():
  """arXiv:2107.02027: of pairs for rows of 512, 23.4 % fill one, 36.9 % have up to 128 tokens, half up to 204."""
  lengths = synthetic.wikipedia_lengths(np.random.default_rng(1), 20_000, 512)
  assert abs(lengths.mean() - 255.83) < 5 and abs(np.median(lengths) - 204) <= 1
  assert abs((lengths == 512).mean() - .234) < .002 and abs((lengths <= 128).mean() - .369) < .003
  rows = synthetic.packed(30_522, 256, 512, 80, 16)['pair_ids']
  assert (rows > 0).mean() > .98 and abs(rows.max(1).mean() - 512 / 260) < .1


@hypothesis.given(st.integers(1, 9), st.integers(8, 70), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_packed_rows_taken_apart_are_the_same_examples(rows, length, pairs, seed):
  """Each token, prediction and label once, in order; and rows are as long as the longest of their batch asks for."""
  packed = [synthetic.packed(64, rows, length, 4, pairs, seed + i) for i in range(3)]
  of = lambda batch, name: np.concatenate([getattr(pair, name) for pair in padded.pairs_of(batch)])
  for batch in packed:
    taken = padded.rows(padded.pairs_of(batch), length)
    count = int(batch['pair_ids'].max(1).sum())
    lengths = (taken['pair_ids'] > 0).sum(1)
    assert taken['pair_ids'].shape == (count, min(-(-lengths.max() // padded.STEP) * padded.STEP, length))
    for name in ('input_ids', 'token_type_ids', 'position_ids'):
      assert (taken[name][taken['pair_ids'] > 0] == batch[name][batch['pair_ids'] > 0]).all()
    assert not taken['input_ids'][taken['pair_ids'] == 0].any()
    for name in ('labels', 'weights'):
      source = {'labels': 'masked_lm_ids', 'weights': 'masked_lm_weights'}[name]
      assert (of(batch, name) == batch[source][batch['masked_lm_weights'] > 0]).all()
    row, slot = np.nonzero(taken['masked_lm_weights'])
    there = batch['masked_lm_weights'] > 0
    chosen = np.take_along_axis(batch['input_ids'], batch['masked_lm_positions'], 1)[there]
    assert (taken['input_ids'][row, taken['masked_lm_positions'][row, slot]] == chosen).all()
    for name in ('next_sentence_labels', 'next_sentence_weights'):
      assert (taken[name][:, 0] == batch[name][batch['next_sentence_weights'] > 0]).all()
  batches = padded.batches(packed)
  total = sum(int(batch['pair_ids'].max(1).sum()) for batch in packed)
  assert len(batches) == 3 and {len(batch['input_ids']) for batch in batches} == {total // 3}


def test_data_of_another_vocabulary_is_refused(tiny, tmp_path):
  data = shards.write_data(tmp_path, sequence_length=16, vocabulary_size=65)
  with pytest.raises(cfg.ConfigError, match='--model.vocab-size 65'):
    one_device(tiny, data_dir=data)


def test_the_command(capsys, tmp_path, monkeypatch):
  flags = ['--batch.size', '8', '--batch.sequence-length', '16', '--batch.predictions', '4', '--model.vocab-size', '64',
           '--model.layers', '1', '--model.dtype', 'float32', '--model.hidden-size', '16',
           '--model.intermediate-size', '32', '--rounds', '1', '--seconds', '0', '--warmup', '1', ALONE]

  def call(*argv):
    monkeypatch.setattr(sys, 'argv', ['bert-jax', 'benchmark', 'step', *argv])
    with pytest.raises(SystemExit) as ended:
      cli.main()
    return ended.value.code, *capsys.readouterr()

  code, out, _ = call('tiny', *flags, '--json', '--profile', str(tmp_path))
  assert code == 0 and json.loads(out)['step_seconds']['min'] > 0
  assert list(tmp_path.rglob('*.xplane.pb'))
  code, out, _ = call('tiny_left_to_right', *flags)
  assert code == 0 and 'tokens per second' in out
  assert call('tinny', *flags)[0] == 2 and call()[0] == 2
  code, _, errors = call('tiny', *flags, '--run.microbatches', '2', '--peer', 'huggingface')
  assert code == 2 and ('no microbatches' in errors or 'pip install' in errors)


@pytest.fixture
def comparable(tiny):
  return dataclasses.replace(tiny, batch=dataclasses.replace(tiny.batch, size=4))


def test_without_torch_the_peer_is_refused(comparable, monkeypatch):
  monkeypatch.setattr(peers.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(cfg.ConfigError, match=r'needs torch and transformers: pip install'):
    one_device(comparable, peer='huggingface')

# ---------------------------------------------------------------- with torch


@pytest.mark.peers
def test_the_peer_trains_the_same_model_in_turns(comparable, monkeypatch):
  pytest.importorskip('torch')
  monkeypatch.setenv(peers.TUNABLES, 'glibc.malloc.hugetlb=1')
  report = one_device(comparable, peer='huggingface')
  assert report['peer_loss_difference'] < 1e-5
  assert set(report['peer_ratios']) == {'huggingface', 'as_shipped', 'without_huge_pages'}
  for name, ratio in report['peer_ratios'].items():
    assert 0 < ratio['min'] <= ratio['median'] <= ratio['max']
    rates = report['peers'][name]
    assert rates['tokens_per_second'] == pytest.approx(16 * rates['sequences_per_second'])
  assert report['peer_ratio'] == report['peer_ratios']['huggingface']


@pytest.mark.peers
@pytest.mark.parametrize('real', [False, True])
def test_the_peer_gets_the_examples_of_packed_rows(comparable, tmp_path, real):
  """With the same loss, in rows of one pair; of random tokens and of prepared data."""
  pytest.importorskip('torch')
  data = shards.write_data(tmp_path, pieces=400, documents=40, sequence_length=16, vocabulary_size=64) if real else None
  packed = dataclasses.replace(comparable, batch=dataclasses.replace(comparable.batch, pack=True, pairs_per_row=3))
  report = one_device(packed, peer='huggingface', data_dir=data)
  assert report['peer_loss_difference'] < 1e-5
  pairs = report['sequences_per_second'] / report['tokens_per_second'] * 16 * report['real_token_share']
  for rates in report['peers'].values():
    assert rates['rows'] == pytest.approx(4 * pairs, abs=1) and rates['mfu'] is None
    assert rates['real_token_share'] < report['real_token_share']
    assert rates['warm_up_seconds'] > 0


@pytest.mark.peers
def test_the_head_on_masked_positions_has_the_loss_and_gradient_of_the_head_everywhere(comparable, tmp_path):
  torch = pytest.importorskip('torch')
  batches = [synthetic.batch(64, 4, 16, 4, seed=1, shortest=.4)]
  batches[0]['masked_lm_weights'][0, 2:] = 0
  model = dataclasses.replace(comparable.model, hidden_dropout=0., attention_dropout=0.)
  still = dataclasses.replace(comparable, model=model)
  peers.write_inputs(tmp_path, still, parameters.random(still.model), batches, batches[0])
  trainer = huggingface.TimedPeer(tmp_path)
  trainer.model.eval()
  found = []
  for loss_of in huggingface.LOSSES.values():
    trainer.model.zero_grad()
    loss = loss_of(trainer.model, trainer.batches[0])
    loss.backward()
    found.append([loss.detach(), *(p.grad.clone() for p in trainer.model.parameters())])
  for masked, everywhere in zip(*found):
    torch.testing.assert_close(masked, everywhere, atol=1e-6, rtol=1e-5)
  assert math.isclose(trainer.evaluate()['loss'], float(found[0][0]), rel_tol=1e-6)
  assert trainer.content == [(int((batches[0]['pair_ids'] > 0).sum()), 4)]
  assert np.isfinite(trainer.turn('masked', 0.)['seconds']).all()
