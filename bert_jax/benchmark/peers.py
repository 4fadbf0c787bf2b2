"""Peers beside our own step: each in a process of its own that sleeps until it is asked; the ratios, round by round."""

import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from bert_jax import config as cfg, objectives
from bert_jax.benchmark import huggingface as child, padded, turns

PEERS = ('huggingface',)
TUNABLES = 'GLIBC_TUNABLES'  # through which `bert-jax` asks for huge pages: see launch/cli.py
PREALLOCATE = 'XLA_PYTHON_CLIENT_PREALLOCATE'  # whether JAX takes three quarters of a GPU's memory when it starts


def huge_pages() -> bool:
  return 'hugetlb=1' in os.environ.get(TUNABLES, '')


@dataclasses.dataclass(frozen=True)
class Work:
  """What a peer does in a step, in the mean over its batches."""
  flops: float
  rows: float
  real_token_share: float


def leave_room() -> bool:
  """Lets JAX take a GPU's memory as it needs it, so that a peer on the same GPU finds room. To be called before JAX
  looks for devices; False where the user has said otherwise."""
  return os.environ.setdefault(PREALLOCATE, 'false') == 'false'


def check_comparable(config: cfg.Config, peer: str, mesh: jax.sharding.Mesh) -> None:
  """Raises ConfigError where the comparison would not be one."""
  cfg.require(peer in PEERS, f'--peer is {peer!r}: wanted one of {", ".join(PEERS)}')
  missing = [name for name in ('torch', 'transformers') if importlib.util.find_spec(name) is None]
  cfg.require(not missing, f"--peer huggingface needs {' and '.join(missing)}: pip install 'bert_jax[peers]'")
  alike = [name for name, objective in objectives.OBJECTIVES.items() if objective.huggingface == 'BertForPreTraining']
  cfg.require(config.objective in alike,
              f'--peer huggingface trains BertForPreTraining, objective is {config.objective!r}: '
              f'pass --objective {alike[0]}')
  cfg.require(config.run.microbatches == 1,
              f'--peer huggingface knows no microbatches, found {config.run.microbatches}: pass --run.microbatches 1')
  cfg.require(mesh.devices.size == 1, f'--peer huggingface runs on one device, the mesh has '
              f'{mesh.devices.size}: show it one only, on GPUs by CUDA_VISIBLE_DEVICES=0')


@contextlib.contextmanager
def started(config: cfg.Config, params, batches: list[dict[str, np.ndarray]],
            compiled: bool) -> Iterator[list['Rival']]:
  """transformers' model with our weights and examples, each kind of it a rival.

  The kinds: the head on masked positions only; as shipped (logits at every token); if `compiled`, through
  torch.compile. They run in our environment, and on a CPU the first also without huge pages where that has them.
  """
  kinds = {'huggingface': 'masked', 'as_shipped': 'shipped'} | ({'compiled': 'compiled'} if compiled else {})
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
    theirs = padded.batches(batches) if config.batch.pack else batches
    pairs, longest = padded.pairs_of(batches[0]), config.batch.sequence_length
    first = padded.rows(pairs, longest) if config.batch.pack else batches[0]
    write_inputs(pathlib.Path(folder), config, params, theirs, first)
    start = lambda environment: stack.enter_context(contextlib.closing(Process(folder, environment)))
    alike = start(dict(os.environ))
    work = work_of(config, theirs)
    rivals = [Rival(name, mode, alike, work) for name, mode in kinds.items()]
    if huge_pages() and jax.default_backend() == 'cpu':
      plain = start({name: value for name, value in os.environ.items() if name != TUNABLES})
      rivals.append(Rival('without_huge_pages', 'masked', plain, work))
    yield rivals


def work_of(config: cfg.Config, batches: list[dict[str, np.ndarray]]) -> Work:
  """Of rows of one pair, by the formula that our FLOPs go by: the head on predicted tokens only."""
  flops = 0.0
  for batch in batches:
    rows, length = batch['pair_ids'].shape
    predictions = max(round(np.count_nonzero(batch['masked_lm_weights']) / rows), 1)
    of = dataclasses.replace(config.batch, size=rows, sequence_length=length, predictions=predictions, pack=False,
                             pairs_per_row=1)
    flops += rows * config.learns.flops_per_row(config.model, of) / len(batches)
  places = sum(batch['pair_ids'].size for batch in batches)
  return Work(flops, statistics.mean(len(batch['pair_ids']) for batch in batches),
              sum(np.count_nonzero(batch['pair_ids']) for batch in batches) / places)


def begin(rivals: list['Rival']) -> None:
  """Asks for the loss of the first batch and then for steps that compile all: what takes longest to compile first."""
  rivals[0].process.send('evaluate')
  for rival in longest_first(rivals):
    rival.process.send('warm_up', mode=rival.mode)


def begun(rivals: list['Rival']) -> float:
  """Waits for what `begin` asked for; the loss."""
  loss = rivals[0].process.answer()['loss']
  for rival in longest_first(rivals):
    rival.told |= rival.process.answer()
  return loss


def longest_first(rivals: list['Rival']) -> list['Rival']:
  return sorted(rivals, key=lambda rival: rival.mode != 'compiled')


def write_inputs(folder: pathlib.Path, config: cfg.Config, params, batches: list[dict[str, np.ndarray]],
                 evaluated: dict[str, np.ndarray]) -> None:
  """What huggingface.py reads: a model in transformers' format, its settings, the batches, and that of its loss."""
  import safetensors.numpy

  from bert_jax.convert import huggingface
  o = config.optimizer
  tensors = huggingface.to_tensors(config.model, config.learns.heads, jax.device_get(params))
  (folder / huggingface.CONFIG).write_text(json.dumps(huggingface.to_config(config.model, 0, config.learns)))
  safetensors.numpy.save_file(tensors, folder / huggingface.WEIGHTS, {'format': 'pt'})
  (folder / child.SETTINGS_FILE).write_text(json.dumps({
      'device': 'cuda' if jax.default_backend() == 'gpu' else 'cpu', 'dtype': config.model.computes_in,
      'clip_norm': o.clip_norm, 'weight_decay': o.weight_decay, 'learning_rate': o.peak_learning_rate,
      'betas': [o.b1, o.b2], 'epsilon': o.epsilon}))
  arrays: dict[str, Any] = {f'{i}/{name}': array
                            for i, batch in enumerate([*batches, evaluated]) for name, array in batch.items()}
  np.savez(folder / child.BATCHES_FILE, **arrays)


def against(rivals: list['Rival'], ours: list[turns.Turn], peak: float | None) -> dict:
  """peer_ratio, ours over theirs in real tokens a second, of the first rival, and the same of all by name.

  `peak`: FLOP/s of the device, for their mfu.
  """
  ratios = {rival.name: turns.spread([mine.tokens_per_second / theirs.tokens_per_second
                                      for mine, theirs in zip(ours, rival.taken)])
            for rival in rivals}
  return {'peer_ratio': next(iter(ratios.values())), 'peer_ratios': ratios,
          'peers': {rival.name: rival.report(peak) for rival in rivals},
          'peer_versions': rivals[0].process.ask('about')}


class Process:
  """A process of huggingface.py."""

  def __init__(self, folder: str, environment: dict[str, str]):
    self.process: Any = subprocess.Popen(
        [sys.executable, '-P', '-m', child.__name__, folder], env=environment, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE)

  def ask(self, do: str, **arguments) -> dict:
    """The answer to one request. Raises ConfigError where the process ended instead."""
    self.send(do, **arguments)
    return self.answer()

  def send(self, do: str, **arguments) -> None:
    """A request whose answer is read later: they come in the order of the requests."""
    with contextlib.suppress(BrokenPipeError):  # then there is no answer
      self.process.stdin.write(json.dumps({'do': do} | arguments) + '\n')
      self.process.stdin.flush()

  def answer(self) -> dict:
    answer = self.process.stdout.readline()
    cfg.require(bool(answer), 'the peer ended before it answered: what it printed stands above')
    return json.loads(answer)

  def close(self) -> None:
    with contextlib.suppress(BrokenPipeError):
      self.process.stdin.close()
    try:
      self.process.wait(10)
    except subprocess.TimeoutExpired:
      self.process.kill()
      self.process.wait()
    self.process.stdout.close()


class Rival:
  """One way in which a peer's process takes steps."""

  def __init__(self, name: str, mode: str, process: Process, work: Work):
    self.name, self.mode, self.process, self.work = name, mode, process, work
    self.taken: list[turns.Turn] = []
    self.told: dict[str, Any] = {}  # beside the turns: memory, what compiling took

  def take_turn(self, seconds: float) -> None:
    answer = self.process.ask('turn', mode=self.mode, seconds=seconds)
    self.taken.append(turns.Turn(*(answer.pop(field.name) for field in dataclasses.fields(turns.Turn))))
    self.told |= answer

  def report(self, peak: float | None) -> dict:
    steps = turns.spread([second for turn in self.taken for second in turn.seconds])
    return {'tokens_per_second': statistics.median(turn.tokens_per_second for turn in self.taken),
            'sequences_per_second': statistics.median(turn.sequences / sum(turn.seconds) for turn in self.taken),
            'step_seconds': steps, 'mfu': self.work.flops / steps['median'] / peak if peak else None,
            'rows': self.work.rows, 'real_token_share': self.work.real_token_share, **self.told}
