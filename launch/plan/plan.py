"""A plan: the devices and the mesh, and on them each length's step, or the best that a search finds."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
from jax.sharding import Mesh

from bert_jax import choices, program
from bert_jax.config import Config
from bert_jax.errors import require
from input_pipeline import storage
from launch.plan import lengths, search, step, topology


@dataclasses.dataclass(frozen=True)
class Place:
  """What a plan is for."""
  topology: str | None  # 'v5e:4x4'; None: the devices of this machine
  slices: int
  price: float | None  # of a chip-hour
  cache: storage.Path | None = None  # of what is read of compiled programs

  def devices(self) -> list:
    """All devices. Raises ConfigError."""
    if self.topology is None:
      found = jax.devices()
      require(self.price is None or found[0].platform != 'cpu',
              f'--price {self.price} changes nothing on {found[0].device_kind}, whose compiler estimates no times: '
              'name a --topology')
      return found
    jax.config.update('jax_platforms', 'cpu')  # nothing is run: a TPU or GPU of this machine is left to others
    return topology.devices(self.topology, self.slices)


@dataclasses.dataclass(frozen=True)
class Planned:
  """One length's step."""
  figures: step.Figures
  otherwise: step.Figures | None  # with layers unrolled where it has a loop, or the reverse; where that was left to us
  microbatches_chosen: bool  # by what fits, as that was left to us

  def to_json(self) -> dict:
    """The figures by name; `otherwise`: the other ones."""
    return dataclasses.asdict(self.figures) | {
        'otherwise': self.otherwise and dataclasses.asdict(self.otherwise),
        'microbatches_chosen': self.microbatches_chosen}


def of_lengths(planned: list[tuple[Config, int]], place: Place, batch_per_chip: int | None) -> list[Planned]:
  """Each (settings, steps), all on the mesh that the first one gets, and unrolled as `pretrain` would. Raises
  ConfigError."""
  devices = place.devices()
  planned = [(choices.by_rule(config, devices), steps) for config, steps in planned]
  mesh = mesh_of(planned[0][0], devices, batch_per_chip)
  planned = [(sized(config, mesh, batch_per_chip), steps) for config, steps in planned]

  @functools.cache
  def figures(config, steps):
    return step.figures(config, mesh, steps, place.topology, place.price, place.cache)

  chosen = planned[0][0].run.microbatches == choices.AUTO
  if chosen:
    planned = in_microbatches(planned, devices, figures)
    mesh = mesh_of(planned[0][0], devices, batch_per_chip)
  first = planned[0][0].model
  if first.unroll != choices.AUTO or first.layers == 1:
    return [Planned(figures(config, steps), None, chosen) for config, steps in planned]
  unrolled, looped = ([figures(choices.with_model(config, unroll=layers), steps) for config, steps in planned]
                      for layers in (first.layers, 1))
  large = first.layers_at_once == 1  # else all are unrolled wherever it is
  loop = large and (devices[0].platform not in choices.FASTER_UNROLLED or not all(map(leaves_enough, unrolled)))
  usual, other = (looped, unrolled) if loop else (unrolled, looped)
  return [Planned(*both, chosen) for both in zip(usual, other, strict=True)]


def in_microbatches(planned: list[tuple[Config, int]], devices: list,
                    figures: Callable[[Config, int], step.Figures]) -> list[tuple[Config, int]]:
  """The same in as few microbatches as fit, as `pretrain` would choose them. Raises ConfigError."""
  def needed(count):
    found = [figures(choices.with_microbatches(config, count), steps) for config, steps in planned]
    takes = [item.needed_bytes or (math.inf if item.fits is False else 0) for item in found]
    return max(takes) * found[0].chips / found[0].devices

  first = figures(choices.with_microbatches(planned[0][0], 1), planned[0][1])
  require(first.memory_bytes is not None, f'run.microbatches auto goes by the memory of a {first.device_kind}, which '
          'is not known: wanted a number, or a --topology')
  state = first.parameter_bytes + first.optimizer_bytes
  each = first.chips / first.devices
  count, _ = choices.fewest(choices.possible_microbatches(planned[0][0], devices), needed, first.memory_bytes * each,
                            state * each)
  return [(choices.with_microbatches(config, count), steps) for config, steps in planned]


def leaves_enough(figures: step.Figures) -> bool:
  """Whether a program fits, with what is to be left of a device."""
  each = figures.devices / figures.chips
  return bool(figures.fits) and figures.memory_bytes - figures.needed_bytes >= choices.SPARE * each


def search_from(config: Config, steps: int, place: Place, batch_per_chip: int | None, tries: int) -> list[step.Figures]:
  """The best that were found from these settings on, the best first. Raises ConfigError."""
  devices = place.devices()
  require(devices[0].platform != 'cpu', '--search goes by estimated times, and of a CPU there are none: name a '
          '--topology')
  config = choices.by_rule(config, devices)
  config = sized(config, mesh_of(config, devices, batch_per_chip), batch_per_chip)
  require(config.run.microbatches != choices.AUTO, '--search finds the microbatches itself: leave run.microbatches '
          'auto out')
  if config.model.unroll == choices.AUTO:
    config = choices.with_model(config, unroll=config.model.layers)
  return search.search(config, steps, devices, place.topology, place.price, tries, place.cache)


def mesh_of(config: Config, devices: list, batch_per_chip: int | None) -> Mesh:
  """The mesh that `pretrain` would make of these devices."""
  rows = batch_per_chip * len(devices) if batch_per_chip else config.batch.size
  return program.mesh_of(config, devices, rows)


def sized(config: Config, mesh: Mesh, batch_per_chip: int | None) -> Config:
  """`config` with so many rows for each share of the batch; as it is where none are given."""
  shares = mesh.shape['data'] * mesh.shape['fsdp']
  return lengths.with_batch(config, size=batch_per_chip * shares) if batch_per_chip else config
