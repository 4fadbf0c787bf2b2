"""Pretraining, from top to bottom: mesh, data, state, restore, the loop. The page to read first."""

import contextlib
import dataclasses
import itertools
import signal
import sys
import threading
import time
from collections.abc import Iterator

import jax
from etils import epath

from bert_jax import checkpoint, config as cfg, distributed, evaluate, flops, metrics, optimizer, phases, step as step_lib
from bert_jax.errors import NonFiniteError
from bert_jax.parallel import mesh as mesh_lib


@dataclasses.dataclass(frozen=True)
class Result:
  """How a call of `train` ended."""
  step: int
  resumed_from: int | None  # None: it began anew
  reason: str  # 'steps', 'minutes', or 'signal'
  state: step_lib.TrainState


MOST_SKIPPED = 20  # non-finite steps in a row that end a run


def train(config: cfg.Config, data_dir: epath.PathLike, run_dir: epath.PathLike, *, devices=None, engine: str = 'auto',
          progress: bool = True) -> Result:
  """Trains `config` on the shards of `data_dir`, or goes on where `run_dir` stopped.

  `devices`: all of jax.devices() by default. `engine`: what reads ahead, see input_pipeline.loader.
  Raises ConfigError and DataError for bad settings or data before anything is written; CheckpointError; NonFiniteError.
  """
  mesh = mesh_lib.make_mesh(config.mesh, devices, model=config.model, rows=config.batch.size // config.run.microbatches)
  mesh_lib.check_model(config.model, mesh)
  for phase in phases.phases(config):
    mesh_lib.check_batch(phase.config.batch.size, config.run.microbatches, mesh)
  streams = phases.open_streams(data_dir, config)
  vocabulary, fingerprint = streams[0][1].vocabulary, phases.fingerprint(streams)
  check_vocabulary(config.model, vocabulary, data_dir)
  say = print_once if progress else lambda *_: None

  distributed.agree(cfg.flat(config) | {'the vocabulary': vocabulary.sha256, 'the shards': fingerprint})
  shards = phases.directory(data_dir, config)
  distributed.in_turn(lambda: checkpoint.open_run(run_dir, config, data_dir, vocabulary, shards))
  with checkpoint.manager(run_dir, config.run.keep_checkpoints) as checkpoints:
    graphdef, abstract = step_lib.abstract_state(config, mesh)
    restored = checkpoint.restore(checkpoints, abstract)
    distributed.agree({'the step to resume from': restored and restored[1].step})
    if restored:
      state, meta = restored
      if meta.data_fingerprint != fingerprint:
        raise checkpoint.DriftError(f'{run_dir} was trained on other data than {data_dir} holds now: '
                                    'name its own --data, or another --run-dir')
      say(f'{run_dir}: resuming from step {meta.step:,} of {config.run.steps:,} ({meta.minutes:.1f} minutes of training so far)')
    else:
      state, meta = step_lib.create_state(config, abstract), checkpoint.Meta(0, 0.0, {}, fingerprint)
      say(f'{run_dir}: starting; mesh ' + ' x '.join(f'{axis} {size}' for axis, size in mesh.shape.items()))
      for phase, stream in streams:
        steps, batch = phase.last - phase.first, phase.config.batch
        epochs = steps * batch.size / stream.rows_per_epoch
        say(f'  {steps:,} steps of {batch.size} rows of {batch.sequence_length}: {epochs:.1f} epochs of {stream.rows_per_epoch:,} rows')

    loop = Loop(config, mesh, streams, data_dir, run_dir, checkpoints, meta, progress)
    with contextlib.ExitStack() as stack:
      stack.callback(loop.close)
      stack.enter_context(loop.latch_signals())
      state, reason = loop.run(step_lib.jit_train_step(graphdef, config, mesh, abstract),
                               step_lib.jit_eval_step(graphdef, config, mesh), state, engine)
    checkpoints.wait_until_finished()
    checkpoints.check_for_errors()
  if loop.trust_ratios:
    say('trust ratios of LAMB\n' + metrics.columns(loop.trust_ratios))
  say(f'{run_dir}: stopped at step {loop.step:,}: ' + ENDINGS[reason].format(config=config))
  return Result(loop.step, meta.step if restored else None, reason, state)


ENDINGS = {'steps': 'all {config.run.steps:,} steps are done', 'minutes': 'run.max_minutes {config.run.max_minutes} are used up',
           'signal': 'asked to stop; saved, run the same command to go on'}


def check_vocabulary(model: cfg.Model, vocabulary, data_dir) -> None:
  """Raises ConfigError where the data's vocabulary is not of the model's size."""
  cfg.require(model.vocab_size == vocabulary.size,
              f'{data_dir} was prepared with a vocabulary of {vocabulary.size:,} tokens, the model has {model.vocab_size:,}: '
              f'pass --model.vocab-size {vocabulary.size}, or prepare the data with the vocabulary that the recipe wants')


def print_once(*words) -> None:
  if jax.process_index() == 0:
    print(*words, file=sys.stderr, flush=True)


class Loop:
  """The training loop, and what it holds on to. The host reads the figures of step n - 1 while step n runs."""

  def __init__(self, config, mesh, streams, data_dir, run_dir, checkpoints, meta: checkpoint.Meta, progress: bool):
    self.config, self.mesh, self.streams, self.data_dir, self.checkpoints = config, mesh, streams, data_dir, checkpoints
    self.first, self.step, self.saved, self.fingerprint = meta.step, meta.step, meta.step, meta.data_fingerprint
    self.window, self.clock = metrics.Window(meta.window), metrics.Clock(meta.minutes)
    self.writer = metrics.Writer(run_dir, meta.step) if jax.process_index() == 0 else None
    self.progress = metrics.Progress(meta.step, config.run.steps, progress and jax.process_index() == 0)
    peak = flops.peak(mesh.devices.flat[0].device_kind)
    self.peak = peak and peak * mesh.devices.size
    self.stop_asked, self.calls = threading.Event(), itertools.count(1)
    self.skipped_in_row, self.skipped, self.trust_ratios = 0, None, {}

  def run(self, train_step, eval_step, state, engine):
    """Steps until one of the run's ends. Returns the state and the reason."""
    config = self.config
    if reason := self.ended():
      return state, reason
    pending = None
    self.clock.mark(self.step)
    with contextlib.closing(self.host_batches(engine)) as batches:
      for batch, tokens in self.device_batches(batches):
        state, report = train_step(state, batch)
        if pending:
          self.record(*pending)
        self.step += 1
        pending = report, tokens, self.step
        every = lambda steps: steps and self.step % steps == 0
        reason = self.ended()
        if reason or every(config.run.checkpoint_every) or every(config.run.evaluate_every):
          self.record(*pending)
          pending = None
        if reason or every(config.run.checkpoint_every):
          self.save(state)
        if every(config.run.evaluate_every):
          self.evaluate(eval_step, state)
        if reason:
          return state, reason
    raise RuntimeError('the data ended before the steps did')

  def host_batches(self, engine) -> Iterator[dict]:
    """This process' batches from the step at hand on, phase after phase."""
    for phase, stream in self.streams:
      if phase.last > self.step:
        first, part = max(self.step, phase.first), mesh_lib.process_slice(self.mesh)
        with contextlib.closing(stream.batches(first, phase.last, *part, engine=engine)) as batches:
          yield from batches

  def ended(self) -> str | None:
    if distributed.asked_to_stop(next(self.calls)):  # on every step, whatever else is the case: it is said once
      self.stop_asked.set()
    if self.step >= self.config.run.steps:
      return 'steps'
    if self.out_of_time():
      return 'minutes'
    return 'signal' if self.stop_asked.is_set() else None

  def out_of_time(self) -> bool:
    """Whether max_minutes are used up, by the clock of process 0. Several ask where a log line is due: they wait for the answer."""
    run = self.config.run
    if run.max_minutes is None or jax.process_count() > 1 and self.step != self.first and self.step % run.log_every:
      return False
    return distributed.process_0_says(self.clock.minutes() >= run.max_minutes)

  def device_batches(self, batches) -> Iterator[tuple[dict, int]]:
    """Batches on the devices, each sent while the one before it is worked on, with their real tokens (of this process)."""
    ahead = None
    while True:
      start = time.monotonic()
      batch = next(batches, None)
      self.clock.waited += time.monotonic() - start
      following = batch and (mesh_lib.put_batch(batch, self.mesh), int((batch['pair_ids'] > 0).sum()))
      if ahead:
        yield ahead
      if following is None:
        return
      ahead = following

  def record(self, report, tokens: int, step: int) -> None:
    """Reads a step's figures from the devices, which waits for it, and logs where a line is due."""
    ratios, report = report['trust_ratios'], jax.device_get(report | {'trust_ratios': {}})
    skipped = int(report['skipped'])
    self.skipped_in_row = self.skipped_in_row + 1 if self.skipped is not None and skipped > self.skipped else 0
    self.skipped = skipped
    if self.skipped_in_row >= MOST_SKIPPED:
      raise NonFiniteError(f'the loss or its gradient was not finite in {MOST_SKIPPED} steps in a row, up to step {step}: '
                           'lower optimizer.peak_learning_rate; the last checkpoint is sound')
    self.window.add(report, tokens)
    if step % self.config.run.log_every and step != self.config.run.steps:
      return
    processes = mesh_lib.process_slice(self.mesh)[1]
    scalars = self.window.means() | {'learning_rate': float(report['learning_rate']), 'gradient_norm': float(report['gradient_norm']),
                                     'skipped_steps': skipped}
    rates = self.clock.rates(step, self.window.sums['tokens'] * processes, flops.per_step(phases.at(self.config, step)), self.peak)
    self.clock.mark(step)
    self.window = metrics.Window()
    if self.writer:
      self.writer.write(step, 'train', scalars | rates | {'minutes': self.clock.minutes()})
      self.trust_ratios = optimizer.by_layer(jax.device_get(ratios))
      if self.trust_ratios:
        self.writer.write(step, 'trust_ratio', self.trust_ratios)
    minutes_left = self.config.run.max_minutes and self.config.run.max_minutes - self.clock.minutes()
    self.progress.update(step, metrics.describe(scalars | rates), rates['steps_per_second'], minutes_left)

  def save(self, state) -> None:
    if self.step > self.saved:
      checkpoint.save(self.checkpoints, state, checkpoint.Meta(self.step, self.clock.minutes(), self.window.sums, self.fingerprint))
      self.saved = self.step

  def evaluate(self, eval_step, state) -> None:
    """Figures of the validation split to the log."""
    config = phases.at(self.config, self.step)
    validation = evaluate.open_validation(self.data_dir, config, verify='framing')
    figures = evaluate.run(eval_step, state.params, validation, self.mesh, config, config.run.evaluation_rows)
    if self.writer:
      self.writer.write(self.step, 'validation', figures)

  @contextlib.contextmanager
  def latch_signals(self):
    """SIGTERM and Ctrl-C end the run after the step at hand, saved; a second Ctrl-C at once.

    Of several processes the first to hear of it tells the others: JAX's own handler of SIGTERM does that, and must stay.
    """
    if threading.current_thread() is not threading.main_thread():
      yield
      return
    several, heard = jax.process_count() > 1, threading.Event()

    def ask(number, frame):
      if heard.is_set() and number == signal.SIGINT:
        raise KeyboardInterrupt
      heard.set()
      if several:
        signal.raise_signal(signal.SIGTERM)
      else:
        self.stop_asked.set()

    numbers = [signal.SIGINT] if several else [signal.SIGTERM, signal.SIGINT]
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
      yield
    finally:
      for number, handler in before.items():
        signal.signal(number, handler)

  def close(self) -> None:
    self.progress.close()
    if self.writer:
      self.writer.close()
