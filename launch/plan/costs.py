"""What a compiled program does in one run, and how long its compiler thinks that it runs, from its text (hlo.py).

The compiler's time stands in the attributes of what is scheduled:

  %f = f32[8,128]{1,0} fusion(%x), kind=kLoop, calls=%c, backend_config={…"estimated_cycles":"1234"…}

Of a GPU's program there is none: what it runs, one after the other, is listed in its place (roofline.py).
"""

import collections
import dataclasses
import re

from launch.plan import collectives as collective_lib, hlo, kernels as kernel_lib, opinion, roofline, traffic

CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Costs:
  """What a program does in one run on one device."""
  flops: int  # of dots and convolutions, every trip of every loop counted, and what custom kernels say of themselves
  cycles: int | None  # that the compiler expects of all that is scheduled, every trip counted; None: it says nothing
  dearest: tuple[tuple[str, int, int], ...]  # (op name, cycles, how many instructions), the dearest first
  kernels: tuple[kernel_lib.Kernel, ...]
  collectives: tuple[collective_lib.Collective, ...]  # the largest first, small ones too
  endless: tuple[str, ...]  # op names of loops whose trips could not be told: all of the above counts one
  unestimated: tuple[tuple[str, int], ...]  # (op name, bytes) of gathers, scatters, sorts: scheduled without cycles
  schedule: roofline.Schedule | None  # of a program without cycles
  works: tuple[opinion.Work, ...]  # of one with cycles

  def collective_bytes(self) -> dict[str, int]:
    """Bytes of all collectives, by kind."""
    total = collections.Counter()
    for item in self.collectives:
      total[item.kind] += item.bytes
    return dict(total)

  def dearest_seconds(self, clock: float, peak: float, memory_rate: float, count: int = 10) -> tuple[dict, ...]:
    """op_name, seconds and count of what takes longest, custom kernels among it."""
    seconds, runs = collections.Counter(), collections.Counter()
    for name, cycles, times in self.dearest:
      seconds[name] += cycles / clock
      runs[name] += times
    for item in self.kernels:
      seconds[item.op_name] += item.times * item.seconds(peak, memory_rate)
      runs[item.op_name] += item.times
    return tuple(dict(op_name=name, seconds=value, count=runs[name]) for name, value in seconds.most_common(count))


def cycles_of(attributes: str) -> int | None:
  """The compiler's cycles of one run; None: it says nothing."""
  found = CYCLES.search(attributes)
  return int(found[1]) if found else None


def read(text: str) -> Costs:
  """The costs of `compiled.as_text()`."""
  module = hlo.parse(text)
  used = list(hlo.uses(module))
  loops = [use.instruction for use in used if use.instruction.opcode == 'while']
  kernels = tuple(kernel_lib.of(use) for use in used if kernel_lib.is_one(use))
  cycles, counts, unestimated = collections.Counter(), collections.Counter(), collections.Counter()
  for use in used:
    found = cycles_of(use.instruction.attributes) if use.scheduled else None
    if found is not None:
      cycles[use.instruction.op_name] += found * use.times
      counts[use.instruction.op_name] += use.times
    elif use.scheduled and use.instruction.opcode != 'custom-call' and roofline.takes_time(use):
      unestimated[use.instruction.op_name] += traffic.moved(use) * use.times
  return Costs(
      flops=sum(hlo.flops(use) * use.times for use in used) + sum(item.flops * item.times for item in kernels),
      cycles=cycles.total() if cycles else None,
      dearest=tuple((name, count, counts[name]) for name, count in cycles.most_common()),
      kernels=kernels, collectives=collective_lib.of(used),
      endless=tuple(item.op_name for item in loops if hlo.trip_count(module, item) is None),
      unestimated=tuple(unestimated.most_common()), schedule=None if cycles else roofline.schedule(module, used),
      works=tuple(opinion.works(text, module, used, cycles_of)) if cycles else ())
