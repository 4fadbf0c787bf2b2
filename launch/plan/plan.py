"""A plan: the devices and the mesh, and on them each length's step, or the best that a search finds."""

import dataclasses

import jax
from jax.sharding import Mesh

from bert_jax import program
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
      require(self.price is None or found[0].platform == 'tpu',
              f'--price {self.price} changes nothing on {found[0].device_kind}, whose compiler estimates no times: '
              'name a --topology')
      return found
    jax.config.update('jax_platforms', 'cpu')  # nothing is run: a TPU or GPU of this machine is left to others
    return topology.devices(self.topology, self.slices)


def of_lengths(planned: list[tuple[Config, int]], place: Place, batch_per_chip: int | None) -> list[step.Figures]:
  """The figures of each (settings, steps), all on the mesh that the first one gets. Raises ConfigError."""
  devices = place.devices()
  mesh = mesh_of(planned[0][0], devices, batch_per_chip)
  return [step.figures(sized(config, mesh, batch_per_chip), mesh, steps, place.topology, place.price,
                       place.cache)
          for config, steps in planned]


def search_from(config: Config, steps: int, place: Place, batch_per_chip: int | None, tries: int) -> list[step.Figures]:
  """The best that were found from these settings on, the best first. Raises ConfigError."""
  devices = place.devices()
  config = sized(config, mesh_of(config, devices, batch_per_chip), batch_per_chip)
  return search.search(config, steps, devices, place.topology, place.price, tries, place.cache)


def mesh_of(config: Config, devices: list, batch_per_chip: int | None) -> Mesh:
  """The mesh that `pretrain` would make of these devices."""
  rows = batch_per_chip * len(devices) if batch_per_chip else config.batch.size
  return program.mesh_of(config, devices, rows)


def sized(config: Config, mesh: Mesh, batch_per_chip: int | None) -> Config:
  """`config` with so many rows for each share of the batch; as it is where none are given."""
  shares = mesh.shape['data'] * mesh.shape['fsdp']
  return lengths.with_batch(config, size=batch_per_chip * shares) if batch_per_chip else config
