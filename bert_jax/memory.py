"""What is said where a device has too little memory: one sentence with the numbers, and the settings to change."""

import contextlib
import re
from collections.abc import Callable, Iterator

import jax

from bert_jax import config as cfg, health, phases
from bert_jax.errors import ConfigError

MARKS = 'RESOURCE_EXHAUSTED', 'Out of memory'  # in the error of a compiler or of a runtime, which may call it INTERNAL
# What TPU's compiler says of a program that does not fit: 'Used 17.58G of 15.75G hbm', or '… temporaries (17.58G)'.
USED = re.compile(r'(?:temporaries \(|Used )([\d.]+)([KMGT]?)')
# What runtimes say: 'Out of memory allocating 270926820928 bytes', 'Out of memory while trying to allocate 1.50GiB'.
ASKED = re.compile(r'allocat\w* ([\d.]+) ?([KMGT]?)')
UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


def is_short(error: jax.errors.JaxRuntimeError) -> bool:
  """Whether an error is of too little memory."""
  return any(mark in str(error) for mark in MARKS)


def told(pattern: re.Pattern, text: str) -> int | None:
  """The bytes that an error tells of; None where it tells of none."""
  found = pattern.search(text)
  return found and int(float(found[1]) * UNITS[found[2]])


@contextlib.contextmanager
def of_steps(config, device: jax.Device, needed: Callable[[], int | None] = lambda: None) -> Iterator[None]:
  """In here steps of a run of any kind are compiled and run; `needed`: the bytes that one takes, once that is known.
  Raises ConfigError where the device's memory does not do."""
  with _explained(lambda text: steps_sentence(config, device, needed() or told(USED, text), told(ASKED, text))):
    yield


@contextlib.contextmanager
def of_rows(batch_size: int) -> Iterator[None]:
  """In here rows go through a trained model, `batch_size` at a time. Raises ConfigError as `of_steps`."""
  with _explained(lambda text: (f'out of memory{asked_for(told(ASKED, text))}: lower --batch-size (batch_size in '
                                f'Python), which is {batch_size:,}')):
    yield


@contextlib.contextmanager
def _explained(sentence: Callable[[str], str]) -> Iterator[None]:
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if not is_short(error):
      raise
    raise ConfigError(sentence(str(error))) from error


def steps_sentence(config, device: jax.Device, needed: int | None, asked: int | None) -> str:
  """What does not fit, and what would change it."""
  room, parts = health.device_bytes(device), config.run.parts
  pretrains = isinstance(config, cfg.Config)
  batches = ([phase.config.batch for phase in phases.phases(config)] if pretrains else [config.batch])
  rows = ' and '.join(dict.fromkeys(f'{batch.size:,} rows of {length(batch)}' for batch in batches))
  takes = '' if needed is None else f' takes {needed / 1e9:,.2f} GB, as compiled,'
  of = '' if room is None else f' of the {room / 1e9:,.2f} GB that there are' if takes else (
      f' has no room in {room / 1e9:,.2f} GB')
  auto = ', or auto: the fewest that fit' if pretrains else ''
  remat = '' if config.model.remat == 'full' else (
      f', keep less by --model.remat full (it is {config.model.remat})')
  return (f'out of memory on {device.device_kind}{asked_for(asked)}: a step of {rows} in {parts} '
          f'microbatch{"es" if parts > 1 else ""}{takes}{of}: raise --run.microbatches (it is {parts}{auto}){remat}, '
          f'or lower --batch.size (it is {config.batch.size:,})')


def asked_for(asked: int | None) -> str:
  return '' if asked is None else f', which was asked for {asked / 1e9:,.2f} GB'


def length(batch) -> str:
  """Of its rows: of a task's up to which."""
  return f'{batch.sequence_length}' if hasattr(batch, 'sequence_length') else f'up to {batch.max_length}'
