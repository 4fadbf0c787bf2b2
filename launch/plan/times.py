"""The seconds of a step that was compiled: by the cycles of TPU's compiler, or by the roofline of a GPU."""

from collections.abc import Sequence

from bert_jax import chips as chip_table
from launch.plan import costs as hlo_costs, opinion, roofline, topology


def of(costs: hlo_costs.Costs | None, devices: list, formula: float) -> dict:
  """The seconds of a step on these devices, of a kind; `formula`: FLOP of a chip."""
  chip, chips = chip_table.chip(devices[0].device_kind), topology.chip_count(devices)
  if chip is None or chip.gpu is None:
    return by_cycles(costs, len(devices) // chips, chip, formula)
  return by_roofline(costs, chip, formula, [device.process_index for device in devices])


def estimated(text: str, devices: list, work: float) -> float | None:
  """The seconds of a compiled step, from its text; None: not known. `work`: FLOP of it on all devices."""
  return of(hlo_costs.read(text), devices, work / topology.chip_count(devices))['estimated_step_seconds']


def by_cycles(costs: hlo_costs.Costs | None, each: int, chip: chip_table.Chip | None, formula: float) -> dict:
  """The seconds of a step by the compiler's cycles, and what they leave out; None: not known."""
  ideal = chip and formula / chip.peak
  if costs is None or costs.cycles is None or chip is None or chip.clock is None:
    return dict(estimated_cycles=None, kernels=costs and len(costs.kernels), kernel_seconds=None,
                roofline=None, second_opinion=None, bytes_moved=None, estimated_step_seconds=None,
                exposed_collective_seconds=None, unestimated_seconds=None, dearest=None, ideal_step_seconds=ideal,
                estimated_mfu=None)
  peak, rate, links = chip.peak / each, chip.memory_rate / each, chip.interconnect / each
  kernels = sum(kernel.times * kernel.seconds(peak, rate) for kernel in costs.kernels)
  seconds = costs.cycles / chip.clock + kernels
  exposed = sum(item.wire_bytes() for item in costs.collectives if not item.asynchronous) / links
  return dict(
      estimated_cycles=costs.cycles, kernels=len(costs.kernels), kernel_seconds=kernels, roofline=None,
      second_opinion=opinion.of(costs.works, chip, each) if chip.vector else None, bytes_moved=None,
      estimated_step_seconds=seconds, exposed_collective_seconds=exposed,
      unestimated_seconds=sum(count for _, count in costs.unestimated) / rate,
      dearest=costs.dearest_seconds(chip.clock, peak, rate), ideal_step_seconds=ideal, estimated_mfu=ideal / seconds)


def by_roofline(costs: hlo_costs.Costs | None, chip: chip_table.Chip, formula: float, hosts: Sequence[int]) -> dict:
  """The same by the roofline of a GPU; `hosts`: the number of each device's."""
  if costs is None or costs.schedule is None:
    return by_cycles(None, 1, chip, formula)
  seconds, ideal = costs.schedule.seconds(chip), formula / chip.peak
  of_kind = {kind: costs.schedule.of_kind(kind, chip) for kind in roofline.KINDS}
  return dict(
      estimated_cycles=None, kernels=len(costs.kernels), kernel_seconds=of_kind[roofline.CUSTOM]['seconds'],
      roofline=roofline.ASSUMED | of_kind, second_opinion=None,
      bytes_moved=sum(found['bytes'] for found in of_kind.values()),
      estimated_step_seconds=seconds, exposed_collective_seconds=costs.schedule.exposed(chip, hosts),
      unestimated_seconds=0.0, dearest=costs.schedule.dearest(chip), ideal_step_seconds=ideal,
      estimated_mfu=ideal / seconds)
