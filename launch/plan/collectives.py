"""What a compiled program moves between chips, from its text (hlo.py).

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

A GPU's compiler writes pairs too, and says of one that it does wait for:

  %s = f32[512]{0} all-reduce-start(%x), replica_groups={{0,1}},
    backend_config={"collective_backend_config":{"is_sync":true…}}
"""

import dataclasses
import math
import re

import numpy as np

from launch.plan import hlo

COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'ragged-all-to-all', 'collective-permute',
               'collective-broadcast')
LARGE = 1_000_000  # bytes: smaller collectives are not listed
BETWEEN_SLICES = 'between-slices'  # as the kind of a collective
WAITED_FOR = '"is_sync":true'


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


def of(used: list[hlo.Use]) -> tuple[Collective, ...]:
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
  beside = start and WAITED_FOR not in use.instruction.attributes or steps or use.asynchronous
  return Collective(kind, whole * use.times, beside, use.times,
                    group_size(use.instruction.attributes), use.instruction.op_name)


def is_one(opcode: str) -> bool:
  """Whether an instruction is a collective, or one's beginning or end."""
  return any(opcode.startswith(kind) for kind in COLLECTIVES)


def group_size(attributes: str) -> int:
  """Devices of one replica group; 0 where all take part or there is none."""
  return len(group(attributes))


def group(attributes: str) -> tuple[int, ...]:
  """The devices of the first replica group, () where all take part or there is none. It is written in three ways:

  replica_groups={{0,1,2},{3,4,5}}                a list: 0, 1, 2
  replica_groups=[4,2]<=[2,4]T(1,0)               four groups of two, of 0 … 7 as 2 x 4, transposed: 0, 4
  replica_groups=mesh['a'=4,'b'=2] {'a'}          along axes of a mesh: 0, 2, 4, 6; of {'a':(1)2} along a part of
                                                  an axis, after one of 1: 0, 4
  """
  listed = re.search(r'replica_groups=\{\{([\d,]+)\}', attributes)
  if listed:
    return tuple(map(int, listed[1].split(',')))
  iota = re.search(r'replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', attributes)
  if iota:
    return tuple(numbered(iota[3], iota[4]).ravel()[:int(iota[2])].tolist())
  mesh = re.search(r'replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?\s*'
                   r'\{([^}]*)\}', attributes)
  if not mesh:
    return ()
  sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
  along = {name: np.arange(1) for name in sizes}
  for name, before, part in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", mesh[4]):
    along[name] = np.arange(int(part)) * (sizes[name] // int(before) // int(part)) if part else np.arange(sizes[name])
  ids = numbered(mesh[2] or str(math.prod(sizes.values())), mesh[3]).reshape(*sizes.values())
  return tuple(ids[np.ix_(*along.values())].ravel().tolist())


def numbered(shape: str, order: str | None) -> np.ndarray:
  """0, 1, 2 … in a shape '2,4', its axes then in another order, '1,0'."""
  sizes = [int(size) for size in shape.split(',')]
  ids = np.arange(math.prod(sizes)).reshape(sizes)
  return ids.transpose([int(axis) for axis in order.split(',')]) if order else ids
