"""Sums that travel, means taken last: what a run reports to the console, to TensorBoard and to a file of JSON lines."""

import json
import re
import sys
import time

from etils import epath

from bert_jax.objectives import Sums

LOG = 'metrics.jsonl'


class Window:
  """Sums since the last line of the log, as plain numbers: a checkpoint takes them along, so resuming changes no line."""

  def __init__(self, sums: dict[str, float] | None = None):
    self.sums = dict(sums or {})

  def add(self, report: dict, tokens: int) -> None:
    """One step's report from the devices, and its real tokens (padding is none)."""
    values = {'steps': 1.0, 'tokens': float(tokens)}
    for term, sums in report['terms'].items():
      values |= {f'{term}_{name}': float(value) for name, value in zip(Sums._fields, sums)}
    for name, value in values.items():
      self.sums[name] = self.sums.get(name, 0.0) + value

  def means(self) -> dict[str, float]:
    return means(self.sums)


def means(sums: dict[str, float]) -> dict[str, float]:
  """{'loss', 'mlm_loss', 'mlm_accuracy' …} of {'mlm_loss', 'mlm_weight', 'mlm_hits' …}: means over predictions; 'loss' adds the terms."""
  terms = [name.removesuffix('_weight') for name in sums if name.endswith('_weight')]
  result = {}
  for term in terms:
    weight = sums[f'{term}_weight']
    if not weight:
      continue  # of a term without a prediction there is nothing to say
    result |= {f'{term}_loss': sums[f'{term}_loss'] / weight, f'{term}_accuracy': sums[f'{term}_hits'] / weight}
  return {'loss': sum(value for name, value in result.items() if name.endswith('_loss'))} | result


def columns(ratios: dict[str, float]) -> str:
  """A line for each parameter, with a column for each layer, of {'blocks/0/query/kernel': 0.21 …}."""
  lines: dict[str, list[float]] = {}
  for name, value in ratios.items():
    lines.setdefault(re.sub(r'/\d+/', '/*/', name), []).append(value)
  width = max(map(len, lines))
  return '\n'.join(f'  {name:<{width}}  ' + ' '.join(f'{value:7.3f}' for value in values) for name, values in lines.items())


class Writer:
  """Scalars to RUN/metrics.jsonl and, where tensorboardX is installed, to RUN/tensorboard.

  Lines behind `step`, of a run that was cut off, are dropped.
  """

  def __init__(self, run_dir: epath.PathLike, step: int):
    run_dir = epath.Path(run_dir)
    path = run_dir / LOG
    lines = [line for line in read(run_dir) if line['step'] <= step]
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    self._file = path.open('a')
    self._board = None
    try:
      from tensorboardX import SummaryWriter
      self._board = SummaryWriter(str(run_dir / 'tensorboard'), purge_step=step + 1)
    except ImportError:
      print('tensorboardX is not installed: scalars go to metrics.jsonl alone', file=sys.stderr)

  def write(self, step: int, kind: str, scalars: dict[str, float]) -> None:
    """One line of `kind`: train, validation or trust_ratio."""
    self._file.write(json.dumps({'step': step, 'kind': kind} | scalars) + '\n')
    self._file.flush()
    if self._board:
      for name, value in scalars.items():
        self._board.add_scalar(f'{kind}/{name}', value, step)

  def close(self) -> None:
    self._file.close()
    if self._board:
      self._board.close()


def read(run_dir: epath.PathLike) -> list[dict]:
  """The lines of RUN/metrics.jsonl; a last line that was cut off is none."""
  path = epath.Path(run_dir) / LOG
  lines = []
  for line in path.read_text().splitlines() if path.exists() else ():
    try:
      lines.append(json.loads(line))
    except json.JSONDecodeError:
      continue
  return lines


class Clock:
  """Seconds of a run, steps a second of late, and the share of the time that the loop waited for data."""

  def __init__(self, minutes: float):
    self.before, self.start = minutes, time.monotonic()
    self.mark(0)

  def mark(self, step: int) -> None:
    """Begins a new measurement at `step`."""
    self.since, self.step, self.waited = time.monotonic(), step, 0.0

  def minutes(self) -> float:
    return self.before + (time.monotonic() - self.start) / 60

  def rates(self, step: int, tokens: float, flops_per_step: float, peak: float | None) -> dict[str, float]:
    """Since the last mark: tokens_per_second (real), steps_per_second, data_stall_share, and mfu where the devices' `peak` is known."""
    seconds = max(time.monotonic() - self.since, 1e-9)
    steps = step - self.step
    rates = {'tokens_per_second': tokens / seconds, 'steps_per_second': steps / seconds, 'data_stall_share': self.waited / seconds}
    return rates | ({'mfu': steps * flops_per_step / seconds / peak} if peak else {})


class Progress:
  """A bar where tqdm is installed and stderr is a terminal; else a line now and then."""

  def __init__(self, step: int, steps: int, show: bool = True):
    self.steps, self.bar, self.show, self.last = steps, None, show, 0.0
    if show and sys.stderr.isatty():
      try:
        from tqdm import tqdm
        layout = '{percentage:3.0f}%|{bar:16}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]'  # the time left stands in our own figures
        self.bar = tqdm(total=steps, initial=step, dynamic_ncols=True, bar_format=layout)
      except ImportError:
        pass

  def update(self, step: int, text: str, rate: float, minutes_left: float | None) -> None:
    """`text`: the figures; `rate`: steps a second; `minutes_left`: of a run that ends by the clock."""
    left = (self.steps - step) / max(rate, 1e-9)
    if minutes_left is not None:
      left = min(left, 60 * max(minutes_left, 0))
    text += f'  left {left // 60:.0f}:{left % 60:02.0f}'
    if self.bar is not None:
      self.bar.set_postfix_str(text, refresh=False)
      self.bar.update(step - self.bar.n)
    elif self.show and (time.monotonic() - self.last > 10 or step == self.steps):
      self.last = time.monotonic()
      print(f'step {step}/{self.steps}  {text}', file=sys.stderr, flush=True)

  def close(self) -> None:
    if self.bar is not None:
      self.bar.close()


def describe(scalars: dict[str, float]) -> str:
  """'loss 6.91  mlm 0.143  nsp 0.62 …' for the progress bar."""
  parts = [f'loss {scalars["loss"]:.3f}']
  parts += [f'{term.removesuffix("_accuracy")} acc {value:.3f}' for term, value in scalars.items() if term.endswith('_accuracy')]
  parts += [f'{scalars["tokens_per_second"]:,.0f} tok/s']
  return '  '.join(parts + ([f'MFU {scalars["mfu"]:.1%}'] if 'mfu' in scalars else []))
