"""How fast the training step is, what it needs, and how it compares with transformers in turns. No data, no TensorFlow.

B rows, T tokens.
"""

import contextlib
import dataclasses
import math
import os
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bert_jax import chips, choices, config as cfg, memory, objectives, phases, program as program_lib, synthetic
from bert_jax.benchmark import peers, turns
from bert_jax.parallel import mesh as mesh_lib
from input_pipeline import storage
from input_pipeline.batches import layout, loader

BATCH_COUNT = 8  # different ones, that come round and round
PROFILED_STEPS = 5  # steps in a trace
# A compiled program's text, its devices, FLOP of a step on all of them -> seconds of a step; None: not known.
Estimate = Callable[[str, list, float], float | None]


def measure(config: cfg.Config, data_dir: storage.PathLike | None = None, *, rounds: int = 5, seconds: float = 10.0,
            warmup: int = 3, peer: str | None = None, compiled_peer: bool = False,
            profile: storage.PathLike | None = None, devices=None, estimate: Estimate | None = None) -> dict:
  """Rates, spread and memory of the step of `config`, compiled as `pretrain` compiles it, ready for JSON.

  Batches are random tokens, or those of `data_dir`. tokens_per_second counts real tokens, sequences_per_second pairs:
  in packed rows several a row; mfu counts the FLOPs of whole rows, padding among them. With peer='huggingface',
  transformers' model trains on the same weights and examples in turns, each in a process of its own that sleeps while
  the other works; of packed rows it gets each pair as a row (padded.py). peer_ratio is ours over theirs, in real tokens
  a second, round by round. `estimate`: of chips that are known, what the measured step stands beside.
  """
  cfg.require(rounds >= 1 and warmup >= 1, f'--rounds is {rounds} and --warmup {warmup}: wanted at least 1 each')
  cfg.require(profile is None or storage.is_local(profile),
              f'--profile {profile}: the profiler writes only to local disks; copy its files afterwards')
  device = (jax.devices() if devices is None else devices)[0]
  needed = list[int | None]()
  with (memory.of_steps(config, device, lambda: needed[-1] if needed else None),
        Comparison(config, data_dir, peer, compiled_peer, devices) as compared):
    compared.compile()
    needed.append(program_lib.needed_by(compared.ours.step))
    compared.warm_up(warmup)
    compared.take_turns(rounds, seconds)
    report = compared.report()
  if estimate and compared.ours.peak:
    report |= compared.ours.beside(estimate)
  if profile:
    compared.ours.profile(profile)
  return report


def host_batches(config: cfg.Config, data_dir: storage.PathLike | None, mesh) -> list[dict[str, np.ndarray]]:
  """This process' rows of some batches: of the data, or of random tokens, packed ones in Wikipedia's mix of lengths."""
  index, count = mesh_lib.process_slice(mesh)
  batch = config.batch
  if data_dir is not None:
    from bert_jax import train
    _, stream = phases.open_streams(data_dir, dataclasses.replace(config, long=cfg.Long()))[0]
    train.check_vocabulary(config.model, stream.vocabulary, data_dir)
    return [stream.batch(step, index, count) for step in range(BATCH_COUNT)]
  local = loader.rows_per_process(batch.size, count)
  shape = config.model.vocab_size, batch.size, batch.sequence_length, batch.predictions
  if batch.pack:
    window = synthetic.packed(shape[0], BATCH_COUNT * batch.size, *shape[2:], batch.pairs_per_row)
    made = [{name: array[i::BATCH_COUNT] for name, array in window.items()} for i in range(BATCH_COUNT)]
  else:
    made = [synthetic.batch(*shape, seed=seed) for seed in range(BATCH_COUNT)]
  return [{name: layout.fill_up(array[index * local:][:local], local) for name, array in whole.items()}
          for whole in made]


class Comparison:
  """Our step, and the peer's kinds of it where there is one: a context, as these run in processes of their own."""

  def __init__(self, config: cfg.Config, data_dir: storage.PathLike | None = None, peer: str | None = None,
               compiled_peer: bool = False, devices=None):
    """Raises ConfigError, DataError."""
    self.config = choices.settle(config, devices).config
    program = program_lib.of(self.config, devices)
    if peer:
      peers.check_comparable(self.config, peer, program.mesh)
    self.batches = host_batches(self.config, data_dir, program.mesh)
    self.ours = TimedStep(self.config, program, self.batches)
    self.peer, self.compiled_peer, self.stack = peer, compiled_peer, contextlib.ExitStack()
    self.rivals: list[peers.Rival] = []
    # torch.compile takes a core or more for a minute or two: on a GPU while our compiler does.
    self.beside = program.mesh.devices.flat[0].platform == 'gpu'
    self.loss = math.nan
    self.found: dict[str, Any] = {}

  def __enter__(self) -> 'Comparison':
    if self.peer:
      start = peers.started(self.config, self.ours.state.params, self.batches, self.compiled_peer)
      self.rivals = self.stack.enter_context(start)
      if self.beside:
        peers.begin(self.rivals)
    return self

  def __exit__(self, *error) -> None:
    self.stack.close()

  def compile(self) -> None:
    self.ours.compile()
    if self.rivals:
      if not self.beside:
        peers.begin(self.rivals)
      self.loss = self.ours.loss(self.batches[0])

  def warm_up(self, steps: int) -> None:
    """Takes steps that are not counted; before, the losses are compared."""
    if self.rivals:
      self.found['peer_loss_difference'] = abs(peers.begun(self.rivals) - self.loss)
    self.ours.warm_up(steps)

  def take_turns(self, rounds: int, seconds: float) -> None:
    for number in range(rounds):
      in_order: list[Any] = [self.ours, *self.rivals]
      for one in in_order[::-1 if number % 2 else 1]:  # there and back: what drifts meets all alike
        one.take_turn(seconds)

  def report(self) -> dict:
    return self.found | self.ours.report() | (
        peers.against(self.rivals, self.ours.taken, self.ours.peak) if self.rivals else {})


def whole(pair_ids: np.ndarray, size: int) -> tuple[int, int]:  # [rows T]
  """(real tokens, pairs) of a batch of `size` rows, by those that this process has of them."""
  own = max(int((pair_ids > 0).any(1).sum()), 1)
  return round((pair_ids > 0).sum() * size / own), round(pair_ids.max(1).sum() * size / own)


class TimedStep:
  """The compiled step, its state, and batches on the devices."""

  def __init__(self, config: cfg.Config, program: program_lib.Program, batches: list[dict[str, np.ndarray]]):
    self.config, self.program, self.mesh = config, program, program.mesh
    self.taken: list[turns.Turn] = []
    self.content = [whole(batch['pair_ids'], config.batch.size) for batch in batches]
    places = len(batches) * config.batch.size * config.batch.sequence_length
    self.real_token_share = sum(tokens for tokens, _ in self.content) / places
    self.state = program.init()
    self.batches = [mesh_lib.put_batch(batch, self.mesh, program.microbatches) for batch in batches]
    one = chips.peak(self.mesh.devices.flat[0].device_kind)
    self.peak = one and one * self.mesh.devices.size  # FLOP/s

  def compile(self) -> None:
    begin = time.perf_counter()
    self.step = self.program.train_step.lower(self.state, self.batches[0]).compile()
    self.compile_seconds = time.perf_counter() - begin

  def loss(self, batch: dict[str, np.ndarray]) -> float:
    """Of a host batch, without dropout, with the parameters at hand."""
    sums, _ = self.program.evaluation_step(self.state.params, mesh_lib.put_batch(batch, self.mesh))
    return float(objectives.loss_of(sums, objectives.totals(self.program.objective, batch)))

  def launch(self, index: int):
    self.state, report = self.step(self.state, self.batches[index])
    return report

  def warm_up(self, steps: int) -> None:
    for index in range(steps):
      report = self.launch(index % len(self.batches))
    jax.block_until_ready(report)

  def take_turn(self, seconds: float) -> None:
    self.taken.append(turns.take(self.launch, jax.block_until_ready, self.content, seconds, ahead=True))

  def profile(self, directory: storage.PathLike) -> None:
    """Writes a trace of some steps that TensorBoard and Perfetto open."""
    with jax.profiler.trace(os.fspath(directory), create_perfetto_trace=False):
      for index in range(PROFILED_STEPS):
        with jax.profiler.StepTraceAnnotation('train', step_num=index):
          report = self.launch(index % len(self.batches))
      jax.block_until_ready(report)

  def beside(self, estimate: Estimate) -> dict:
    """The estimate of this very program, and how many times as long the step takes."""
    work = self.program.flops_per_step(self.config.batch)
    text: Any = self.step.as_text()
    seconds = estimate(text, list(self.mesh.devices.flat), work)
    measured = statistics.median(second for turn in self.taken for second in turn.seconds)
    return {'estimated_step_seconds': seconds, 'times_the_estimate': measured / seconds if seconds else None}

  def report(self) -> dict:
    """Medians over rounds; step_seconds over all steps."""
    taken = self.taken
    steps = turns.spread([second for turn in taken for second in turn.seconds])
    devices = self.mesh.devices.flat
    work = self.program.flops_per_step(self.config.batch)
    compiled: Any = self.step.memory_analysis()
    stats = devices[0].memory_stats() or {}
    return {
        'sequences_per_second': statistics.median(turn.sequences / sum(turn.seconds) for turn in taken),
        'tokens_per_second': statistics.median(turn.tokens_per_second for turn in taken),
        'real_token_share': self.real_token_share,
        'step_seconds': steps,
        'mfu': work / steps['median'] / self.peak if self.peak else None,
        'flops_per_second': work / steps['median'],
        'compile_seconds': self.compile_seconds,
        'argument_bytes': compiled.argument_size_in_bytes, 'temporary_bytes': compiled.temp_size_in_bytes,
        'peak_device_bytes': stats.get('peak_bytes_in_use'),
        'peak_rss_bytes': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        'steps': sum(len(turn.seconds) for turn in taken), 'rounds': len(taken),
        'devices': f'{self.mesh.devices.size} x {devices[0].device_kind}', 'huge_pages': peers.huge_pages(),
        'config': dataclasses.asdict(self.config)}
