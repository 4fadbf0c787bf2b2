"""docs/hardware.md: what recipes would take on a card, a slice and a laptop.

    make hardware

`python -m launch.hardware_page plan FILE RECIPE,… TOPOLOGY …` makes the plans that `bert-jax plan` makes, of GPUs and
of TPUs in the environment that has their compiler; `measure FILE RECIPE,…` times the steps on a core of the CPU that is
here; `page FILE` prints the page. FILE (docs/hardware.json) keeps what each found.
"""

import dataclasses
import importlib.metadata
import json
import math
import os
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Iterator

import jax

from bert_jax import chips, choices, compiled, recipes
from bert_jax.benchmark import step as benchmark_step
from launch.plan import lengths, plan, roofline, step

DAY = 86_400  # seconds
RECIPES = 'tiny', 'mini', 'small', 'base', 'large'
FEW_LAYERS, SOME_LAYERS = 2, 4  # of which no loop is made for a TPU, for a GPU
LAPTOP, LAPTOP_TOKENS, LAPTOP_STEPS = 'laptop', 2048, 3  # places of a step that is timed, how many are


@dataclasses.dataclass(frozen=True)
class Machine:
  """What a plan is for, and what an hour of one of its chips costs."""
  topology: str
  name: str
  price: float  # US dollars
  seller: str


# By what asks for the least of those who let a single one: prices of March 2026, and of August 2026 of the A100 of
# 40 GB, as others collected them of RunPod's page (Community Cloud); of a chip of v5e Google's list (us-central1, on
# demand).
MACHINES = (
    Machine('rtx4090:1', 'RTX 4090', 0.34, 'RunPod'), Machine('l4:1', 'L4', 0.44, 'RunPod'),
    Machine('a100-40g:1', 'A100 40 GB', 1.00, 'RunPod'), Machine('a100-80g:1', 'A100 80 GB', 1.39, 'RunPod'),
    Machine('h100:1', 'H100', 2.69, 'RunPod'), Machine('v5e:2x4', 'v5e-8', 1.20, 'Google'))


@dataclasses.dataclass(frozen=True)
class Row:
  """A recipe's step at one of its lengths on a machine."""
  recipe: str
  machine: str  # a topology, or LAPTOP
  device: str
  chips: int
  rows: int  # of the batch
  length: int
  microbatches: int
  at_once: int  # rows of a device in a microbatch
  loop: bool  # over layers: not unrolled
  needed_bytes: int | None
  memory_bytes: int
  seconds: float | None  # of a step; None: it does not fit
  ideal_seconds: float | None
  steps: int  # of the recipe at this length
  by: str  # roofline, cycles, measured
  jax: str

  @property
  def tokens_per_second(self) -> float | None:
    """Places of rows, padding among them."""
    return self.seconds and self.rows * self.length / self.seconds

# ---------------------------------------------------------------- figures


def planned(name: str, machine: Machine, known: list[Row]) -> list[Row]:
  """A recipe's steps, of all its lengths, in as few microbatches as fit them. `known`: rows of other machines, whose
  programs tell how many to begin with."""
  on_tpu = machine.topology.startswith('v')
  config, gpu = recipes.recipe(name), chips.GPUS.get(machine.topology.partition(':')[0])
  if config.model.layers > (FEW_LAYERS if on_tpu else SOME_LAYERS):  # all of them take many minutes to compile
    config = choices.with_model(config, unroll=1)
  else:
    config = choices.with_model(config, unroll=config.model.layers)
  place = plan.Place(machine.topology, 1, None, compiled.folder(compiled.AUTO))
  alike = [row for row in known if row.recipe == name and row.machine.startswith('v') == on_tpu and row.seconds]
  count = beginning(alike, gpu) if alike and gpu else choices.AUTO
  while True:
    one = choices.with_microbatches(config, count)
    found = [item.figures for item in plan.of_lengths(lengths.chosen(one, None, None, True), place, None)]
    if all(f.fits for f in found) or count in (choices.AUTO, config.batch.size):
      return [of_figures(name, machine, f) for f in found]
    count *= 2


def beginning(alike: list[Row], gpu: chips.Chip) -> int:
  """The least power of 2 of microbatches that would fit a GPU, by what another one's program takes in its own: its
  temporaries are about all."""
  row = max(alike, key=lambda row: (row.needed_bytes or 0) * row.microbatches)
  count = 1
  while (row.needed_bytes or 0) * row.microbatches / count > choices.FILLED * (gpu.room or 0):
    count *= 2
  return count


def of_figures(name: str, machine: Machine, f: step.Figures) -> Row:
  """What the page tells of a plan."""
  each = math.ceil(f.batch / (f.mesh['data'] * f.mesh['fsdp']))
  return Row(name, machine.topology, f.device_kind, f.chips, f.batch, f.sequence_length, f.microbatches,
             math.ceil(each / f.microbatches), f.unroll == 1, f.needed_bytes, f.memory_bytes or 0,
             f.estimated_step_seconds if f.fits else None, f.ideal_step_seconds, f.steps,
             'roofline' if f.roofline else 'cycles', importlib.metadata.version('jax'))


def measured(name: str) -> Iterator[Row]:
  """A recipe's steps on one core of the CPU that is here: of fewer rows, the least CPU seconds of some steps, taken as
  often as the recipe's batch has such parts. CPU seconds, as other work may share the machine."""
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
  for config, steps in lengths.chosen(recipes.recipe(name), None, None, True):
    rows = LAPTOP_TOKENS // config.batch.sequence_length
    parts = config.batch.size // rows
    with benchmark_step.Comparison(lengths.with_batch(config, size=rows)) as timed:
      timed.compile()
      timed.warm_up(1)
      seconds = min(cpu_seconds(lambda timed=timed, i=i: jax.block_until_ready(timed.ours.launch(i)))
                    for i in range(LAPTOP_STEPS))
    yield Row(name, LAPTOP, cpu(), 1, config.batch.size, config.batch.sequence_length, parts, rows, False,
              resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
              os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'), seconds * parts, None, steps, 'measured',
              importlib.metadata.version('jax'))


def cpu_seconds(work: Callable[[], object]) -> float:
  """Of all threads of this process."""
  begin = time.process_time()
  work()
  return time.process_time() - begin


def cpu() -> str:
  """Its name."""
  names = [line.partition(':')[2].strip() for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines()
           if line.startswith('model name')]
  return names[0]


def keep(file: pathlib.Path, found: list[Row]) -> None:
  """Puts rows into the file, in place of those of the same recipe and machine."""
  new = {(row.recipe, row.machine) for row in found}
  rows = [row for row in read(file) if (row.recipe, row.machine) not in new] + found
  order = [machine.topology for machine in MACHINES] + [LAPTOP]
  rows.sort(key=lambda row: (RECIPES.index(row.recipe), order.index(row.machine), row.length))
  file.write_text('[\n' + ',\n'.join(json.dumps(dataclasses.asdict(row)) for row in rows) + '\n]\n')


def read(file: pathlib.Path) -> list[Row]:
  return [Row(**row) for row in json.loads(file.read_text())] if file.exists() else []

# ---------------------------------------------------------------- the page

HEAD = '''# What fits on which card, how long it takes, and what it costs

Recipe by card: what a run of all its steps takes, and below what each of its steps does. **None of the GPUs and TPUs
was at hand**: their figures are plans of one card, or of one slice of 8 chips, as `bert-jax plan RECIPE --topology
MACHINE --run.microbatches auto --all-lengths` makes them ([plans.md](plans.md)), of the recipe's own batches in
bfloat16 with dropout 0.1. `bert-jax plan` does the same for your own card, settings and price (`--price`).

## A whole run

{days}

{by_hour} They ask for least of those who let a single one, in 2026, and are no promise: larger clouds ask
two to four times as much for the same GPU. Most corpora of one's own want fewer steps
([guide.md](guide.md#how-much-text)), which take as much less.

## Each step

*Rows at once* are of a device, *microbatches* how often it takes so many for a step, as few as fit. Tokens are places
of rows, padding among them.

| recipe | machine | rows of | rows at once | microbatches | memory of a device | step | tokens/s | how |
|---|---|---|---|---|---|---|---|---|
{steps}

* *estimated, by roofline*: at least so long. Of each kernel of the compiled program the longer of its products at
  {peak:.0%} of the peak and its bytes at {rate:.0%} of the memory rate, and {launch:g} µs a launch. Memory is the share
  of a GPU that JAX takes ({share:.0%}; more by `{variable}`).
* *estimated, by cycles*: of TPU's compiler. *A loop* is one over layers, which compiles in a few minutes; unrolled, as
  `pretrain` has layers where they fit, a step of `large` takes about a quarter less ([performance.md](performance.md)).
* *measured*: on **one core** of {laptop}, by the CPU seconds of a step, as other work shared the machine; a laptop has
  four to eight cores, and takes as much less as they share the work. Memory is of the whole process. {untried}

This page is written by `make hardware`, here with jax {versions}; [hardware.json](hardware.json) has its figures.
'''


def page(rows: list[Row]) -> str:
  """The page, of what was found."""
  versions = ' and '.join(sorted({row.jax for row in rows}))
  laptop = next((row.device for row in rows if row.machine == LAPTOP), 'not there')
  tried = {row.recipe for row in rows if row.machine == LAPTOP}
  untried = ', '.join(f'`{name}`' for name in RECIPES if name not in tried)
  by_hour = '; '.join(f'{machine.name} {machine.price:.2f} ({machine.seller})' for machine in MACHINES)
  return HEAD.format(
      days=whole(rows), by_hour=f'Costs are in US dollars, at these prices of a chip-hour: {by_hour}.',
      steps='\n'.join(map(line, rows)), peak=roofline.SHARE_OF_PEAK, rate=roofline.SHARE_OF_RATE,
      launch=roofline.LAUNCH * 1e6, share=chips.USUAL_SHARE, variable=chips.SHARE[0], laptop=laptop, versions=versions,
      untried=f'Not tried there: {untried}.' if untried else '')


def of_topology(topology: str) -> Machine:
  return next(machine for machine in MACHINES if machine.topology == topology)


def name_of(topology: str) -> str:
  return next((machine.name for machine in MACHINES if machine.topology == topology), topology)


def whole(rows: list[Row]) -> str:
  """Days and cost of all steps of each recipe, on each machine."""
  machines = [machine.topology for machine in MACHINES] + [LAPTOP]
  heads = ['recipe', 'steps', *map(name_of, machines)]
  lines = [heads, ['---'] * len(heads)]
  for recipe in RECIPES:
    steps = {row.length: row.steps for row in rows if row.recipe == recipe}
    told = ', '.join(f'{count:,} of {length}' for length, count in steps.items())
    lines.append([recipe, told, *(cell([row for row in rows if (row.recipe, row.machine) == (recipe, machine)])
                                  for machine in machines)])
  return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def cell(rows: list[Row]) -> str:
  """Days and cost of a recipe on a machine."""
  if not rows:
    return 'not tried'
  if any(row.seconds is None for row in rows):
    return 'does not fit'
  days = sum(row.steps * (row.seconds or 0) for row in rows) / DAY
  price = next((machine.price for machine in MACHINES if machine.topology == rows[0].machine), None)
  cost = '' if price is None else f', ${days * 24 * price * rows[0].chips:,.0f}'
  return (f'{days * 24:,.1f} hours' if days < 1 else f'{days:,.1f} days' if days < 100 else f'{days:,.0f} days') + cost


def line(row: Row) -> str:
  """A step, as a line of the table."""
  memory = f'{row.needed_bytes / 1e9:.1f} of {row.memory_bytes / 1e9:.1f} GB' if row.needed_bytes else '?'
  step, tokens = 'does not fit', ''
  if row.seconds is not None and row.tokens_per_second is not None:
    step = f'{row.seconds * 1e3:,.0f} ms' if row.seconds < 10 else f'{row.seconds:,.0f} s'
    tokens = f'{row.tokens_per_second:,.0f}'
  how = f'{row.by}, a loop' if row.loop and row.by != 'measured' else row.by
  return (f'| {row.recipe} | {name_of(row.machine)} | {row.length} | {row.at_once} | {row.microbatches} | {memory} | '
          f'{step} | {tokens} | {"estimated, by " if row.by != "measured" else ""}{how} |')


def main(what: str, file: pathlib.Path, names: list[str]) -> None:
  """A recipe after the other, each kept when it is there."""
  if what == 'page':
    print(page(read(file)), end='')
  for name in () if what == 'page' else names.pop(0).split(','):
    for machine in [of_topology(topology) for topology in names] if what == 'plan' else (None,):
      print(f'{name} on {machine.name if machine else LAPTOP}', file=sys.stderr, flush=True)
      keep(file, planned(name, machine, read(file)) if machine else list(measured(name)))


if __name__ == '__main__':
  jax.config.update('jax_platforms', 'cpu')
  main(sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:])
