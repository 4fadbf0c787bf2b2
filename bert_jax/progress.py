"""What a person sees of a run on its way: a bar in a terminal, lines in a log, and what both say."""

import sys
import time
from collections.abc import Mapping

PROBE = 'probe_'  # what the names of the probes' figures begin with
LOG_SECONDS = 10.0  # between two lines of a log
STAY_SECONDS = 60.0  # between two lines of a terminal that stay above the bar


class Progress:
  """A bar where tqdm is installed and stderr is a terminal, and now and then a line that stays; else a line more often.
  """

  def __init__(self, step: int, steps: int, show: bool = True):
    self.steps, self.bar, self.show = steps, None, show
    self.last = -LOG_SECONDS  # when the last line was written, by the monotonic clock
    if show and sys.stderr.isatty():
      try:
        from tqdm import tqdm
        layout = '{percentage:3.0f}%|{bar:16}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]'  # our text says the time left
        self.bar = tqdm(total=steps, initial=step, dynamic_ncols=True, bar_format=layout)
        self.last = time.monotonic()
      except ImportError:
        pass

  def to(self, step: int) -> None:
    """Moves a bar, if there is one, to `step`, without figures."""
    if self.bar is not None:
      self.bar.update(step - self.bar.n)

  def update(self, step: int, text: str, rate: float, minutes_left: float | None) -> None:
    """`text`: the figures; `rate`: steps a second; `minutes_left`: of a run that ends by the clock."""
    left = (self.steps - step) / max(rate, 1e-9)
    if minutes_left is not None:
      left = min(left, 60 * max(minutes_left, 0))
    text += f'  left {left // 60:.0f}:{left % 60:02.0f}'
    if self.bar is not None:
      self.bar.set_postfix_str(text, refresh=False)
      self.to(step)
    seconds = LOG_SECONDS if self.bar is None else STAY_SECONDS
    if self.show and (time.monotonic() - self.last > seconds or step == self.steps):
      self.last = time.monotonic()
      self.tell(f'step {step:,}/{self.steps:,}  {text}')

  def tell(self, text: str) -> None:
    """Writes a line that stays, above the bar where there is one."""
    if self.bar is not None:
      self.bar.write(text, file=sys.stderr)
    else:
      print(text, file=sys.stderr, flush=True)

  def close(self) -> None:
    if self.bar is not None:
      self.bar.close()


def progress_text(scalars: Mapping[str, float]) -> str:
  """'loss 6.91  mlm acc 0.143  nsp acc 0.62 …' for the progress bar."""
  parts = [f'loss {scalars["loss"]:.3f}']
  parts += [f'{term.removesuffix("_accuracy")} acc {value:.3f}'
            for term, value in scalars.items() if term.endswith('_accuracy')]
  parts += [f'{scalars["tokens_per_second"]:,.0f} tok/s']
  return '  '.join(parts + ([f'MFU {scalars["mfu"]:.1%}'] if 'mfu' in scalars else []))


def probes_text(probed: Mapping[str, float]) -> str:
  """'  pairs accuracy 0.531 …', of the figures of probes."""
  return ''.join(f'  {name.removeprefix(PROBE).replace("_", " ")} {value:.3f}' for name, value in probed.items())


def held_out_text(figures: Mapping[str, float]) -> str:
  """'held-out MLM 5.21, NSP 0.61, acc 0.143 and 0.622': the loss of each term, and what else an evaluation found."""
  terms = [name.removesuffix('_loss') for name in figures if name.endswith('_loss')]
  parts = [f'{term.replace("_", " ").upper()} {figures[f"{term}_loss"]:.2f}' for term in terms]
  parts = parts or [f'loss {figures["loss"]:.2f}'] if 'loss' in figures else parts
  own = {'loss', *(f'{term}{end}' for term in terms for end in ('_loss', '_accuracy'))}
  accuracies = [f'{figures[f"{term}_accuracy"]:.3f}' for term in terms if f'{term}_accuracy' in figures]
  parts += [f'acc {" and ".join(accuracies)}'] if accuracies else []
  parts += [f'{name.replace("_", " ")} {value:.3f}' for name, value in figures.items()
            if name not in own and not name.startswith(PROBE) and isinstance(value, int | float)]
  probed = {name: value for name, value in figures.items() if name.startswith(PROBE)}
  return f'held-out {", ".join(parts)}{probes_text(probed)}'
