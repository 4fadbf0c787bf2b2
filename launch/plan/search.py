"""Looks for the batch per chip, microbatches, remat and mesh with the most tokens a day, by compiling neighbours of the
best."""

import dataclasses
import typing

import tqdm

from bert_jax import config as cfg, program
from bert_jax.parallel import mesh as mesh_lib
from input_pipeline import storage
from launch.plan import step as plan_step

SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Choice:
  """What a search may change."""
  rows: int  # for each share of the batch
  remat: str
  fsdp: int
  tensor: int
  microbatches: int

  @property
  def at_once(self) -> float:
    """Rows of a share that go through the model at a time."""
    return self.rows / self.microbatches


def search(config: cfg.Config, steps: int, devices: list, topology: str, price: float | None,
           tries: int, cache: storage.Path | None = None) -> list[plan_step.Figures]:
  """The best of at most `tries` programs, the best first; those that do not fit come last. Raises ConfigError."""
  mesh = program.mesh_of(config, devices)
  data, fsdp, tensor = (mesh.shape[axis] for axis in mesh_lib.AXES)
  start = Choice(max(config.batch.size // (data * fsdp), 1), config.model.remat, fsdp, tensor,
                 config.run.parts)
  seen: dict[Choice, plan_step.Figures | None] = {}
  with tqdm.tqdm(total=tries, desc='compiling', unit=' programs') as bar:
    ahead = [start]
    while ahead and len(seen) < tries:
      choice = ahead.pop(0)
      bar.set_postfix_str(', '.join(f'{name} {value}' for name, value in dataclasses.asdict(choice).items()))
      try:
        seen[choice] = attempt(choice, config, steps, devices, topology, price, cache)
      except cfg.ConfigError:
        if choice == start:
          raise
        seen[choice] = None  # a mesh that the batch or the heads do not divide over
      bar.update()
      best = max(seen, key=lambda key: score(seen[key]))
      fits = seen[best] is None or seen[best].fits
      ahead = [near for near in neighbours(best, config, len(devices), fits)
               if near not in seen and not hopeless(near, seen)]
  found = sorted(filter(None, seen.values()), key=score, reverse=True)
  return found[:SHOWN]


def score(figures: plan_step.Figures | None) -> float:
  """Tokens a day; less than nothing for what does not fit, the worse the more it needs."""
  if figures is None:
    return float('-inf')
  return figures.tokens_per_day if figures.fits and figures.tokens_per_day else -(figures.needed_bytes or float('inf'))


def neighbours(choice: Choice, config: cfg.Config, devices: int, fits: bool = True) -> list[Choice]:
  """One change each, the most promising first; more microbatches of as many rows, or where the choice does not fit, of
  fewer."""
  remats = typing.get_args(typing.get_type_hints(cfg.Model)['remat'])
  parts = choice.microbatches * 2
  changes = [{'rows': choice.rows * 2} if fits else {'microbatches': parts},
             *({'remat': remat} for remat in remats if remat != choice.remat),
             {'fsdp': choice.fsdp * 4}, {'rows': choice.rows // 2}, {'fsdp': choice.fsdp // 4},
             {'tensor': choice.tensor * 2}, {'tensor': choice.tensor // 2},
             {'microbatches': choice.microbatches // 2}, {'rows': choice.rows * 2, 'microbatches': parts}]
  near = [dataclasses.replace(choice, **change) for change in changes]
  return [item for item in near if item.rows and item.fsdp and item.tensor and devices % (item.fsdp * item.tensor) == 0
          and config.model.heads % item.tensor == 0 and item.microbatches and item.rows % item.microbatches == 0]


def hopeless(choice: Choice, seen: dict[Choice, plan_step.Figures | None]) -> bool:
  """Whether the same with fewer rows at a time did not fit."""
  failed = (other for other, figures in seen.items() if figures is not None and figures.fits is False)
  same = lambda other: dataclasses.replace(choice, rows=other.rows, microbatches=other.microbatches) == other
  return any(other.at_once <= choice.at_once and same(other) for other in failed)


def attempt(choice: Choice, config: cfg.Config, steps: int, devices: list, topology: str,
            price: float | None, cache: storage.Path | None = None) -> plan_step.Figures:
  """The figures of one choice. Raises ConfigError where the batch or the heads do not divide over its mesh."""
  shape = dataclasses.replace(config.mesh, data=-1, fsdp=choice.fsdp, tensor=choice.tensor)
  run = dataclasses.replace(config.run, microbatches=choice.microbatches)
  mesh = program.mesh_of(dataclasses.replace(config, mesh=shape), devices)
  config = dataclasses.replace(
      config, mesh=shape, run=run, model=dataclasses.replace(config.model, remat=choice.remat),
      batch=dataclasses.replace(config.batch, size=choice.rows * mesh.shape['data'] * mesh.shape['fsdp']))
  return plan_step.figures(config, mesh, steps, topology, price, cache)
