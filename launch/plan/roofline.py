"""The least time of a program whose compiler tells none: kernel by kernel the longer of its FLOPs and its bytes.

It is a bound by assumptions, which are named here and printed with it. What lies in a GPU's caches counts as if it came
from memory, and every kernel, a small product or attention, as if it were as good as a large product.
"""

import collections
import dataclasses
from collections.abc import Sequence

from bert_jax.chips import Chip
from launch.plan import collectives, hlo, kernels, traffic

SHARE_OF_PEAK, SHARE_OF_RATE = 0.75, 0.9  # that FLOPs and bytes reach
LAUNCH = 1.5e-6  # seconds from one kernel to the next
ASSUMED = dict(share_of_peak=SHARE_OF_PEAK, share_of_memory_rate=SHARE_OF_RATE, launch_seconds=LAUNCH)
PRODUCTS, OTHER, CUSTOM = KINDS = 'products', 'other', 'custom'
# What takes no time of its own, or is carried out beside other work by the engines that copy.
FREE = ('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'while', 'conditional', 'call', 'after-all',
        'partition-id', 'replica-id', 'copy-start', 'copy-done', 'slice-start', 'slice-done', 'opt-barrier', 'iota',
        'async-start', 'async-done', 'async-update', 'fusion-done', 'send', 'send-done', 'recv', 'recv-done')


@dataclasses.dataclass(frozen=True)
class Launch:
  """A kernel that a program starts."""
  op_name: str
  kind: str  # PRODUCTS, OTHER or CUSTOM
  times: int
  flops: int  # of one run, as are the bytes
  bytes: int

  def seconds(self, chip: Chip) -> float:
    """Of one run."""
    return max(self.flops / (chip.peak * SHARE_OF_PEAK), self.bytes / (chip.memory_rate * SHARE_OF_RATE)) + LAUNCH


@dataclasses.dataclass(frozen=True)
class Transfer:
  """A collective, and what runs beside it: the launches from number `first` to before `last`."""
  collective: collectives.Collective
  group: tuple[int, ...]  # the devices that take part in the first of it; (): all
  first: int
  last: int


@dataclasses.dataclass(frozen=True)
class Schedule:
  """What one device does, one after the other."""
  launches: tuple[Launch, ...]
  transfers: tuple[Transfer, ...]

  def seconds(self, chip: Chip) -> float:
    """Of all launches."""
    return sum(item.times * item.seconds(chip) for item in self.launches)

  def exposed(self, chip: Chip, hosts: Sequence[int]) -> float | None:
    """Seconds that collectives take at least beyond what runs beside them; None where it is not known how fast a host
    sends. `hosts`: the number of each device's."""
    rates = [rate(chip, [hosts[place] for place in item.group or range(len(hosts))]) for item in self.transfers]
    if None in rates:
      return None
    return sum(max(item.collective.wire_bytes() / speed
                   - sum(other.times * other.seconds(chip) for other in self.launches[item.first:item.last]), 0)
               for item, speed in zip(self.transfers, rates, strict=True))

  def of_kind(self, kind: str, chip: Chip) -> dict:
    """kernels, seconds, flops and bytes of a run."""
    found = [item for item in self.launches if item.kind == kind]
    total = lambda value: sum(item.times * value(item) for item in found)
    return dict(kernels=total(lambda item: 1), seconds=total(lambda item: item.seconds(chip)),
                flops=total(lambda item: item.flops), bytes=total(lambda item: item.bytes))

  def dearest(self, chip: Chip, count: int = 10) -> tuple[dict, ...]:
    """op_name, seconds, count and bytes of what takes longest."""
    seconds, runs, moved = (collections.Counter() for _ in range(3))
    for item in self.launches:
      seconds[item.op_name] += item.times * item.seconds(chip)
      runs[item.op_name] += item.times
      moved[item.op_name] += item.times * item.bytes
    return tuple(dict(op_name=name, seconds=value, count=runs[name], bytes=moved[name])
                 for name, value in seconds.most_common(count))


def rate(chip: Chip, hosts: Sequence[int]) -> float | None:
  """Bytes/s that each of a group sends in a ring; `hosts`: of each of them. Rings over several hosts leave one through
  the adapters of all of its GPUs that take part."""
  assert chip.gpu
  if len(set(hosts)) == 1:
    return chip.interconnect
  return chip.gpu.network and min(chip.gpu.network * hosts.count(hosts[0]), chip.interconnect)


def takes_time(use: hlo.Use) -> bool:
  """Whether a scheduled instruction does work of its own that no collective accounts for."""
  item = use.instruction
  if item.opcode in FREE or collectives.is_one(item.opcode):
    return False
  return (not any(name.startswith(('all-reduce-scatter', 'async')) for name in item.called())
          and 'async-collective' not in item.name)


def schedule(module: hlo.Module, used: Sequence[hlo.Use]) -> Schedule:
  """Of a program's instructions, in the order in which they run."""
  launches, begun, transfers = [], {}, []
  for use in used:
    item = use.instruction
    if not use.scheduled:
      continue
    if collectives.is_one(item.opcode):
      if item.opcode.endswith('-done'):
        transfers.append(Transfer(*begun.pop((use.computation, item.operands[0])), len(launches)))
      else:
        begun[use.computation, item.name] = (collectives.of([use])[0], collectives.group(item.attributes),
                                             len(launches))
        if not item.opcode.endswith('-start'):
          transfers.append(Transfer(*begun.pop((use.computation, item.name)), len(launches)))
    elif takes_time(use):
      launches.append(launch(module, use))
  return Schedule(tuple(launches), tuple(transfers))


def launch(module: hlo.Module, use: hlo.Use) -> Launch:
  """A kernel with what it does."""
  if kernels.is_one(use):
    found = kernels.of(use)
    return Launch(found.op_name, CUSTOM, found.times, found.flops, found.bytes)
  flops = flops_within(module, use)
  return Launch(use.instruction.op_name, PRODUCTS if flops else OTHER, use.times, flops,
                traffic.moved_with_fusions(module, use))


def flops_within(module: hlo.Module, use: hlo.Use) -> int:
  """Of products, those within a fusion too."""
  parts = use.instruction.called() if use.instruction.opcode in hlo.FUSIONS else []
  return hlo.flops(use) + sum(flops_within(module, dataclasses.replace(use, instruction=item, scope=module.computations[
      name], computation=name)) for name in parts for item in module.computations[name].values())
