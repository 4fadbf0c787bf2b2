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

from bert_jax import chips, choices, compiled, program as program_lib, recipes
from bert_jax.benchmark import step as benchmark_step
from bert_jax.config import Config
from launch.plan import costs, gpus, kept, lengths, plan, roofline, step, times, topology

DAY = 86_400  # seconds
RECIPES = 'tiny', 'mini', 'small', 'base', 'large'
MODEL = 'h100:1'  # the GPU that programs are compiled for
FEW_LAYERS, SOME_LAYERS = 2, 4  # of which no loop is made for a TPU, for a GPU
BEGIN = {'large': 2}  # microbatches, where one fits none of these GPUs
LAPTOP, LAPTOP_TOKENS, LAPTOP_STEPS = 'laptop', 2048, 3  # places of a step that is timed, how many are


@dataclasses.dataclass(frozen=True)
class Machine:
  """What a plan is for, and what an hour of one of its chips costs."""
  topology: str
  name: str
  price: float  # US dollars
  seller: str

  @property
  def on_tpu(self) -> bool:
    return self.topology.startswith('v')


# Prices: of GPUs RunPod's page (Community Cloud) of March 2026, as others collected it; of a chip of v5e Google's list
# (us-central1, on demand).
MACHINES = (
    Machine('rtx4090:1', 'RTX 4090', 0.34, 'RunPod'), Machine('l4:1', 'L4', 0.44, 'RunPod'),
    Machine('a100-80g:1', 'A100 80 GB', 1.39, 'RunPod'), Machine('h100:1', 'H100', 2.69, 'RunPod'),
    Machine('v5e:2x4', 'v5e-8', 1.20, 'Google'))


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


def planned(name: str, machine: Machine) -> list[Row]:
  """A recipe's steps, of all its lengths, on a TPU's slice, in as few microbatches as fit them."""
  config = choices.with_microbatches(recipes.recipe(name), choices.AUTO)
  layers = config.model.layers
  config = choices.with_model(config, unroll=1 if layers > FEW_LAYERS else layers)
  place = plan.Place(machine.topology, 1, None, compiled.folder(compiled.AUTO))
  found = [item.figures for item in plan.of_lengths(lengths.chosen(config, None, None, True), place, None)]
  return [of_figures(name, machine, f) for f in found]


def of_figures(name: str, machine: Machine, f: step.Figures) -> Row:
  """What the page tells of a plan."""
  each = math.ceil(f.batch / (f.mesh['data'] * f.mesh['fsdp']))
  return Row(name, machine.topology, f.device_kind, f.chips, f.batch, f.sequence_length, f.microbatches,
             math.ceil(each / f.microbatches), f.unroll == 1, f.needed_bytes, f.memory_bytes or 0,
             f.estimated_step_seconds if f.fits else None, f.ideal_step_seconds, f.steps,
             'cycles', importlib.metadata.version('jax'))


def on_gpus(name: str, machines: list[Machine]) -> Iterator[list[Row]]:
  """A recipe's steps, of all its lengths, on each of these GPUs, in the least power of 2 of microbatches that fits.

  The programs are those that the compiler makes for MODEL; what they would take on the others is reckoned by the
  others' figures.
  """
  config = recipes.recipe(name)
  layers = config.model.layers
  config = choices.with_model(config, unroll=1 if layers > SOME_LAYERS else layers)
  waiting = {machine: chips.GPUS[machine.topology.partition(':')[0]] for machine in machines}
  count = BEGIN.get(name, 1)
  while waiting:
    print(f'{name} in {count} microbatches', file=sys.stderr, flush=True)
    made = [made_for_gpu(one, steps) for one, steps in lengths.chosen(
        choices.with_microbatches(config, count), None, None, True)]
    most = max(needed for needed, *_ in made)
    fitting = [machine for machine, chip in waiting.items() if most <= choices.FILLED * (chip.room or 0)]
    for machine in fitting:
      yield [of_program(name, machine, waiting[machine], *program) for program in made]
      del waiting[machine]
    if waiting:
      least = most * count / (choices.FILLED * max(chip.room or 0 for chip in waiting.values()))
      count = max(2 * count, 2 ** math.ceil(math.log2(least)))


def made_for_gpu(config: Config, steps: int) -> tuple[int, costs.Costs, Config, float, int]:
  """(bytes of a device, costs, `config`, FLOP of a step, `steps`) of a program for MODEL."""
  device, = topology.devices(MODEL)
  chip = chips.chip(device.device_kind)
  assert chip
  config = choices.by_rule(config, [device])
  program = program_lib.on(config, plan.mesh_of(config, [device], None))
  found = kept.compile_or_find(step.lower(config, program), device, compiled.folder(compiled.AUTO), gpus.OPTIONS,
                               gpus.target(chip))
  assert found.memory, found.error
  needed = step.memory_of(found, 1, 0, chip.room)['needed_bytes']
  return needed, costs.read(found.text), config, program.flops_per_step(config.batch), steps


def of_program(name: str, machine: Machine, chip: chips.Chip, needed: int, read: costs.Costs, config: Config,
               flops: float, steps: int) -> Row:
  """What a program takes on a GPU."""
  found = times.by_roofline(read, chip, flops, [0])
  batch, parts = config.batch, config.run.parts
  assert chip.gpu
  return Row(name, machine.topology, chip.gpu.kind, 1, batch.size, batch.sequence_length, parts, batch.size // parts,
             config.model.layers_at_once == 1, needed, chip.room or 0, found['estimated_step_seconds'],
             found['ideal_step_seconds'], steps, 'roofline', importlib.metadata.version('jax'))


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
was at hand**: their figures are plans of one card, or of one slice of 8 chips, of the recipe's own batches in bfloat16
with dropout 0.1 ([plans.md](plans.md)). `bert-jax plan RECIPE --topology MACHINE --run.microbatches auto --all-lengths
--price P` compiles for your own card and settings.

## A whole run

{days}

Costs are in US dollars, at these prices of a chip-hour: {by_hour}.
They ask for least of those who let a single one, in March 2026, and are no promise: larger clouds ask two to four times
as much for the same GPU. Most corpora of one's own want fewer steps ([guide.md](guide.md#how-much-text)), which take as
much less.

## Each step

*Rows at once* are of a device, *microbatches* how often it takes so many for a step: as few as fit, of a GPU of 1, 2,
4, 8 …. Tokens are places of rows, padding among them.

| recipe | machine | rows of | rows at once | microbatches | memory of a device | step | tokens/s | how |
|---|---|---|---|---|---|---|---|---|
{steps}

* *estimated, by roofline*: at least so long. Of each kernel of the compiled program the longer of its products at
  {peak:.0%} of the peak and its bytes at {rate:.0%} of the memory rate, and {launch:g} µs a launch. The program is
  the one that XLA makes for an H100, also where the peak and the rate are another GPU's: of `small` on rows of 128 that
  differs from an RTX 4090's own by 0.3 %. Memory is the share of a GPU that JAX takes ({share:.0%}; more by
  `{variable}`).
* *estimated, by cycles*: of TPU's compiler. *A loop* is one over layers, which compiles sooner; `pretrain` unrolls them
  where they fit, which by plans takes a quarter less ([performance.md](performance.md)).
* *measured*: on **one core** of {laptop},
  by the CPU seconds of a step, as other work shared the machine; a laptop has four to eight cores, and takes as much
  less as they share the work. Memory is of the whole process. {untried}
* *not tried*: by nobody yet. `bert-jax plan` compiles it in some minutes.

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
      days=whole(rows), by_hour=by_hour,
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
    if not any(row.recipe == recipe for row in rows):
      continue
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
    digits = 1 if row.seconds < 0.1 else 0
    step = f'{row.seconds * 1e3:,.{digits}f} ms' if row.seconds < 10 else f'{row.seconds:,.0f} s'
    tokens = f'{row.tokens_per_second:,.0f}'
  how = f'{row.by}, a loop' if row.loop and row.by != 'measured' else row.by
  return (f'| {row.recipe} | {name_of(row.machine)} | {row.length} | {row.at_once} | {row.microbatches} | {memory} | '
          f'{step} | {tokens} | {"estimated, by " if row.by != "measured" else ""}{how} |')


def main(what: str, file: pathlib.Path, names: list[str]) -> None:
  """A recipe after the other, each kept when it is there."""
  if what == 'page':
    print(page(read(file)), end='')
    return
  machines = [of_topology(topology) for topology in names[1:]]
  for name in names[0].split(','):
    print(name, file=sys.stderr, flush=True)
    if what == 'measure':
      keep(file, list(measured(name)))
    for found in on_gpus(name, [machine for machine in machines if not machine.on_tpu]) if what == 'plan' else ():
      keep(file, found)
    for machine in machines:
      if machine.on_tpu:
        keep(file, planned(name, machine))


if __name__ == '__main__':
  jax.config.update('jax_platforms', 'cpu')
  main(sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:])
