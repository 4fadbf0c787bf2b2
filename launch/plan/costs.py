"""What a compiled program moves between chips and how long its compiler thinks that it runs, from its text (hlo.py).

A collective that holds up the chip is an instruction of its own in the schedule, even where an attribute
async_collective_name tells that it was once meant to be asynchronous:

  %ar = f32[512,256]{1,0} all-reduce(%x), channel_id=1, replica_groups=[1,8]<=[8], to_apply=%add

One that runs beside other work is written by TPU's compiler in one of two ways. As a pair, the work between the two:

  %s = (f32[4,8], f32[16,8]) all-gather-start(%x), replica_groups={{0,1,2,3}}, dimensions={0}
  %g = f32[16,8]{1,0} all-gather-done(%s)

Or in steps: a fusion that ends in the custom call AsyncCollectiveStart, fusions named async_collective_fusion that each
do a product and a step of it, and one that ends in AsyncCollectiveDone. In all is one collective, with one chain_id:

  %step (p: f32[4,8]) -> f32[16,8] {
    ROOT %part = f32[16,8]{1,0} all-gather(%p), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0},
      frontend_attributes={chain_id="1"}, backend_config={"async_collective_fusion_config":{…}}

A reduce-scatter may be a fusion of a computation all-reduce-scatter. Between slices all goes through the hosts:

  %send = (bf16[4,8,128], u32[], token[]) send(%a, %t), channel_id=3, is_host_transfer=true,
    frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}

The compiler's time stands in the attributes of what is scheduled; a custom kernel may tell its FLOPs there:

  %f = f32[8,128]{1,0} fusion(%x), kind=kLoop, calls=%c, backend_config={…"estimated_cycles":"1234"…}
  %k = bf16[256,512] custom-call(%x), custom_call_target="tpu_custom_call",
    backend_config={…"cost_estimate":{"flops":"1000000000"…}…}
"""

import collections
import dataclasses
import json
import math
import re

from launch.plan import hlo

COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'ragged-all-to-all', 'collective-permute',
               'collective-broadcast')
LARGE = 1_000_000  # bytes: smaller collectives are not listed
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
CUSTOM_CALL = re.compile(r'custom_call_target="([^"]*)"')
KERNELS = ('tpu_custom_call',)  # Pallas
# What takes no time of its own, or is carried out beside other work by the engines that copy.
FREE = ('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'while', 'conditional', 'call', 'after-all',
        'partition-id', 'replica-id', 'copy-start', 'copy-done', 'slice-start', 'slice-done', 'opt-barrier', 'iota',
        'async-start', 'async-done', 'async-update', 'send', 'send-done', 'recv', 'recv-done')
BETWEEN_SLICES = 'between-slices'  # as the kind of a collective


@dataclasses.dataclass(frozen=True)
class Collective:
  """One collective of the program."""
  kind: str
  bytes: int  # of one device in one run: its whole operand, or of a gather its whole result; of every trip of a loop
  asynchronous: bool  # runs beside other work
  times: int
  devices: int  # that take part in one group; 0 where all do
  op_name: str

  def wire_bytes(self) -> float:
    """What each device sends in the best algorithm that is known for it."""
    share = 1 - 1 / self.devices if self.devices else 1
    return self.bytes * {'all-reduce': 2 * share, 'collective-permute': 1}.get(self.kind, share)


@dataclasses.dataclass(frozen=True)
class Kernel:
  """A custom kernel, of which the compiler knows no time."""
  op_name: str
  times: int
  flops: int  # of one run: by its own cost estimate, else as `attention_flops` reads it from its operands
  bytes: int  # of its operands and results in one run

  def seconds(self, peak: float, memory_rate: float) -> float:
    """Of one run: the longer of its FLOPs at half of `peak` and its bytes at `memory_rate`."""
    return max(self.flops / (peak / 2), self.bytes / memory_rate)


@dataclasses.dataclass(frozen=True)
class Costs:
  """What a program does in one run on one device."""
  flops: int  # of dots and convolutions, every trip of every loop counted, and what custom kernels say of themselves
  cycles: int | None  # that the compiler expects of all that is scheduled, every trip counted; None: it says nothing
  dearest: tuple[tuple[str, int, int], ...]  # (op name, cycles, how many instructions), the dearest first
  kernels: tuple[Kernel, ...]
  collectives: tuple[Collective, ...]  # the largest first, small ones too
  endless: tuple[str, ...]  # op names of loops whose trips could not be told: all of the above counts one
  unestimated: tuple[tuple[str, int], ...]  # (op name, bytes) of gathers, scatters, sorts: scheduled without cycles

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


def read(text: str) -> Costs:
  """The costs of `compiled.as_text()`."""
  module = hlo.parse(text)
  used = list(hlo.uses(module))
  loops = [use.instruction for use in used if use.instruction.opcode == 'while']
  kernels = tuple(kernel(use) for use in used if target(use) in KERNELS)
  cycles, counts, unestimated = collections.Counter(), collections.Counter(), collections.Counter()
  for use in used:
    found = use.scheduled and CYCLES.search(use.instruction.attributes)
    if found:
      cycles[use.instruction.op_name] += int(found[1]) * use.times
      counts[use.instruction.op_name] += use.times
    elif use.scheduled and takes_time(use):
      unestimated[use.instruction.op_name] += moved(use) * use.times
  return Costs(
      flops=sum(hlo.flops(use) * use.times for use in used) + sum(item.flops * item.times for item in kernels),
      cycles=cycles.total() if cycles else None,
      dearest=tuple((name, count, counts[name]) for name, count in cycles.most_common()),
      kernels=kernels, collectives=collectives_of(used),
      endless=tuple(item.op_name for item in loops if hlo.trip_count(module, item) is None),
      unestimated=tuple(unestimated.most_common()))


def target(use: hlo.Use) -> str:
  """The name of what a custom call calls; nothing of other instructions."""
  found = use.instruction.opcode == 'custom-call' and CUSTOM_CALL.search(use.instruction.attributes)
  return found[1] if found else ''


def takes_time(use: hlo.Use) -> bool:
  """Whether a scheduled instruction without an estimate does work that nothing else here accounts for."""
  item = use.instruction
  if item.opcode in FREE or item.opcode == 'custom-call' or any(item.opcode.startswith(kind) for kind in COLLECTIVES):
    return False
  return not re.search(r'calls=%?(all-reduce-scatter|async)', item.attributes) and 'async-collective' not in item.name


def traffic(use: hlo.Use) -> int:
  """Bytes of operands and results."""
  return sum(map(hlo.size, hlo.operand_shapes(use))) + hlo.size(use.instruction.shape)


def moved(use: hlo.Use) -> int:
  """Bytes that an instruction reads and writes: of a slice, which does not touch the rest of its operand, the slice."""
  if use.instruction.opcode == 'dynamic-slice':
    return 2 * hlo.size(use.instruction.shape)
  if use.instruction.opcode == 'dynamic-update-slice':
    return 2 * hlo.size(hlo.operand_shapes(use)[1])
  return traffic(use)


def kernel(use: hlo.Use) -> Kernel:
  """A custom kernel, its FLOPs by its own estimate where it has one."""
  found = re.search(r'"cost_estimate":(\{[^}]*\})', use.instruction.attributes)
  count = int(json.loads(found[1]).get('flops', 0)) if found else attention_flops(use)
  return Kernel(use.instruction.op_name, use.times, count, traffic(use))


def attention_flops(use: hlo.Use) -> int:
  """A guess for a kernel that gives no estimate: attention, where three operands or more share a shape [… T K].

  These are queries, keys and values. Each product of T rows with T others is 2 T T K: two of them forward, and five
  backward, which has at least three results of that shape.
  """
  operands = [dims for shape in hlo.operand_shapes(use) for _, dims in hlo.arrays(shape)]
  shapes = collections.Counter(dims for dims in operands if len(dims) > 2)
  shape, count = shapes.most_common(1)[0] if shapes else ((), 0)
  if count < 3:
    return 0
  results = [dims for _, dims in hlo.arrays(use.instruction.shape)].count(shape)
  return (5 if results >= 3 else 2) * 2 * math.prod(shape) * shape[-2]

# ---------------------------------------------------------------- collectives


def collectives_of(used: list[hlo.Use]) -> tuple[Collective, ...]:
  """Every collective once, though the steps of one stand in several fusions.

  Where it runs beside a loop, some of its steps are in the loop; it is done once all the same, not once a trip.
  """
  found = {}
  for place, use in enumerate(used):
    kind = use.instruction.opcode.removesuffix('-start')
    if kind in COLLECTIVES:
      chain = re.search(r'chain_id="(\d+)"', use.instruction.attributes)
      steps = 'async_collective_fusion_config' in use.instruction.attributes
      channel = re.search(r'channel_id=(\d+)', use.instruction.attributes)
      key = (kind, channel and channel[1], chain[1] if chain else None) if steps else place
      item = collective(use, kind, steps)
      found[key] = min(found.get(key, item), item, key=lambda part: part.times)
    elif kind == 'send' and 'xla_megascale' in use.instruction.attributes:
      found[place] = Collective(BETWEEN_SLICES, hlo.size(hlo.operand_shapes(use)[0]) * use.times, True, use.times, 0,
                                use.instruction.op_name)
  return tuple(sorted(found.values(), key=lambda item: -item.bytes))


def collective(use: hlo.Use, kind: str, steps: bool) -> Collective:
  """One that an instruction begins or is; `steps`: it is one step of one that runs beside other work."""
  start = use.instruction.opcode.endswith('-start')
  whole = sum(map(hlo.size, hlo.operand_shapes(use)))
  if kind == 'all-gather':
    whole = hlo.size(use.instruction.shape) - (whole if start else 0)
  if kind == 'all-reduce' and use.computation.startswith('all-reduce-scatter'):
    kind = 'reduce-scatter'
  return Collective(kind, whole * use.times, start or steps or use.asynchronous, use.times,
                    group_size(use.instruction.attributes), use.instruction.op_name)


def group_size(attributes: str) -> int:
  """Devices of one replica group; 0 where all take part or there is none. It is written in three ways:

  replica_groups={{0,1,2},{3,4,5}}                          a list: 3
  replica_groups=[2,4]<=[8]                                 two groups of four: 4
  replica_groups=mesh['a'=4,'b'=2] {'a'}                    along axes of a mesh: 4; of {'a':(1)2} a part of an axis: 2
  """
  listed = re.search(r'replica_groups=\{\{([\d,]+)\}', attributes)
  if listed:
    return len(listed[1].split(','))
  iota = re.search(r'replica_groups=\[(\d+),(\d+)\]<=', attributes)
  if iota:
    return int(iota[2])
  mesh = re.search(r'replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(.*?\)\))? ?(?:, device_ids=\([^{]*\))?\s*'
                   r'\{([^}]*)\}', attributes)
  if mesh:
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
    axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
    return math.prod(int(part) if part else sizes[name] for name, part in axes)
  return 0
