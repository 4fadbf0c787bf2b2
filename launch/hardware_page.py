"""docs/hardware.md: what recipes would take on one GPU of a kind, by the same plans that `bert-jax plan` makes.

    make hardware, or python -m launch.hardware_page > docs/hardware.md
"""

import importlib.metadata
import sys
from collections.abc import Iterator

import jax

from bert_jax import chips, choices, compiled, recipes
from launch.plan import lengths, plan, roofline, step

RECIPES = ('small', 128), ('base', 128), ('large', 512)
GPUS = 'h100:1', 'rtx4090:1', 'rtx3070:1'
HEAD = '''# What fits on which GPU, and how long it would take

No GPU was at hand: these are plans, `bert-jax plan RECIPE --topology GPU --run.microbatches auto`
([plans.md](plans.md)). Each is of the recipe's own batch at that length, in bfloat16 with dropout 0.1, in as few
microbatches as fit the share of the memory that JAX takes (75 %; more by `{share}`).
A step is a bound by a roofline: {peak:.0%} of the peak, {rate:.0%} of the memory rate, {launch:g} µs a launch. Days
are of the recipe's steps at that length. This page is written by `make hardware`, here with jax {version}.

| recipe | batch | GPU | microbatches | memory | step | times the ideal | tokens/s | days |
|---|---|---|---|---|---|---|---|---|
'''


def page() -> Iterator[str]:
  """The page, part by part; compiling takes some minutes, what earlier plans compiled is kept."""
  yield HEAD.format(share=chips.SHARE[0], peak=roofline.SHARE_OF_PEAK, rate=roofline.SHARE_OF_RATE,
                     launch=roofline.LAUNCH * 1e6, version=importlib.metadata.version('jax'))
  yield from (row(name, planned(name, length, gpu)) for name, length in RECIPES for gpu in GPUS)


def planned(name: str, length: int, gpu: str) -> step.Figures:
  """A recipe's step at one of its lengths, in as few microbatches as fit."""
  print(f'{name} {length} on {gpu}', file=sys.stderr, flush=True)
  (config, steps), = lengths.chosen(recipes.recipe(name), length, None, False)
  config, model = choices.with_microbatches(config, choices.AUTO), config.model
  if model.layers_at_once == model.layers:  # what a loop would take is of no use here
    config = choices.with_model(config, unroll=model.layers)
  found, = plan.of_lengths([(config, steps)], plan.Place(gpu, 1, None, compiled.folder(compiled.AUTO)), None)
  return found.figures


def row(name: str, f: step.Figures) -> str:
  """A line of the table."""
  batch, memory = f'{f.batch} x {f.sequence_length}', f'{f.needed_bytes / 1e9:.1f} of {f.memory_bytes / 1e9:.1f} GB'
  if not f.fits:
    return f'| {name} | {batch} | {f.device_kind} | {f.microbatches} | {memory}: does not fit | | | | |\n'
  seconds = f.estimated_step_seconds
  return (f'| {name} | {batch} | {f.device_kind} | {f.microbatches} | {memory} | {seconds * 1e3:,.0f} ms | '
          f'{seconds / f.ideal_step_seconds:.2f} | {f.tokens_per_day / 86_400:,.0f} | {f.days:,.1f} |\n')


if __name__ == '__main__':
  jax.config.update('jax_platforms', 'cpu')
  for part in page():
    print(part, end='', flush=True)
