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
from bert_jax.benchmark import huggingface as child, turns

PEERS = ('huggingface',)
TUNABLES = 'GLIBC_TUNABLES'  # through which `bert-jax` asks for huge pages: see launch/cli.py


def huge_pages() -> bool:
  return 'hugetlb=1' in os.environ.get(TUNABLES, '')


def check_comparable(config: cfg.Config, peer: str, mesh: jax.sharding.Mesh) -> None:
  """Raises ConfigError where the comparison would not be one."""
  cfg.require(peer in PEERS, f'--peer is {peer!r}: wanted one of {", ".join(PEERS)}')
  missing = [name for name in ('torch', 'transformers') if importlib.util.find_spec(name) is None]
  cfg.require(not missing, f"--peer huggingface needs {' and '.join(missing)}: pip install 'bert_jax[peers]'")
  alike = [name for name, objective in objectives.OBJECTIVES.items() if objective.huggingface == 'BertForPreTraining']
  cfg.require(config.objective in alike,
              f'--peer huggingface trains BertForPreTraining, objective is {config.objective!r}: '
              f'pass --objective {alike[0]}')
  cfg.require(not config.batch.pack,
              '--peer huggingface knows no packed rows: pass --batch.no-pack --batch.pairs-per-row 1')
  cfg.require(config.run.microbatches == 1,
              f'--peer huggingface knows no microbatches, found {config.run.microbatches}: pass --run.microbatches 1')
  cfg.require(mesh.devices.size == 1, f'--peer huggingface runs on one device, the mesh has {mesh.devices.size}')


@contextlib.contextmanager
def started(config: cfg.Config, params, batches: list[dict[str, np.ndarray]],
            compiled: bool) -> Iterator[list['Rival']]:
  """transformers' model with our weights and batches, each kind of it a rival.

  The kinds: the head on masked positions only; as shipped (logits at every token); if `compiled`, through
  torch.compile. They run in our environment, and the first also without huge pages where that has them.
  """
  kinds = {'huggingface': 'masked', 'as_shipped': 'shipped'} | ({'compiled': 'compiled'} if compiled else {})
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
    write_inputs(pathlib.Path(folder), config, params, batches)
    start = lambda environment: stack.enter_context(contextlib.closing(Process(folder, environment)))
    alike = start(dict(os.environ))
    rivals = [Rival(name, mode, alike) for name, mode in kinds.items()]
    if huge_pages():
      plain = start({name: value for name, value in os.environ.items() if name != TUNABLES})
      rivals.append(Rival('without_huge_pages', 'masked', plain))
    yield rivals


def write_inputs(folder: pathlib.Path, config: cfg.Config, params, batches: list[dict[str, np.ndarray]]) -> None:
  """What huggingface.py reads: a model in transformers' format, its settings, and the batches."""
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
  arrays: dict[str, Any] = {f'{i}/{name}': array for i, batch in enumerate(batches) for name, array in batch.items()}
  np.savez(folder / child.BATCHES_FILE, **arrays)


def against(rivals: list['Rival'], ours: list[turns.Turn]) -> dict:
  """peer_ratio, ours over theirs in real tokens a second, of the first rival, and the same of all by name."""
  ratios = {rival.name: turns.spread([mine.tokens_per_second / theirs.tokens_per_second
                                      for mine, theirs in zip(ours, rival.taken)])
            for rival in rivals}
  rates = {rival.name: {'tokens_per_second': statistics.median(turn.tokens_per_second for turn in rival.taken),
                        'sequences_per_second': statistics.median(
                            turn.sequences / sum(turn.seconds) for turn in rival.taken),
                        'step_seconds': turns.spread([second for turn in rival.taken for second in turn.seconds]),
                        **rival.memory} for rival in rivals}
  return {'peer_ratio': next(iter(ratios.values())), 'peer_ratios': ratios, 'peers': rates,
          'peer_versions': rivals[0].process.ask('about')}


class Process:
  """A process of huggingface.py."""

  def __init__(self, folder: str, environment: dict[str, str]):
    self.process: Any = subprocess.Popen(
        [sys.executable, '-P', '-m', child.__name__, folder], env=environment, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE)

  def ask(self, do: str, **arguments) -> dict:
    """The answer to one request. Raises ConfigError where the process ended instead."""
    try:
      self.process.stdin.write(json.dumps({'do': do} | arguments) + '\n')
      self.process.stdin.flush()
      answer = self.process.stdout.readline()
    except BrokenPipeError:
      answer = ''
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

  def __init__(self, name: str, mode: str, process: Process):
    self.name, self.mode, self.process = name, mode, process
    self.taken: list[turns.Turn] = []
    self.memory: dict[str, int | None] = {}

  def loss(self) -> float:
    return self.process.ask('evaluate')['loss']

  def warm_up(self) -> None:
    self.process.ask('turn', mode=self.mode, seconds=0, least=1)

  def take_turn(self, seconds: float) -> None:
    answer = self.process.ask('turn', mode=self.mode, seconds=seconds)
    self.taken.append(turns.Turn(*(answer.pop(field.name) for field in dataclasses.fields(turns.Turn))))
    self.memory = answer
