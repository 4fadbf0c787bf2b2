"""Bytes that the instructions of a compiled program read and write.

One that only takes a slice reads the slice, and one that puts a slice into its operand's place writes the slice, alone
or within a fusion:

  %part (stack: bf16[24,8,128], i: s32[]) -> f32[8,128] {
    %s = bf16[1,8,128]{2,1,0} dynamic-slice(%stack, %i, %zero, %zero), dynamic_slice_sizes={1,8,128}
    ROOT %wide = f32[8,128]{1,0} convert(%b)          of the stack, 1/24 is read
"""

import re

from launch.plan import hlo

SLICES = 'slice', 'dynamic-slice', 'gather'  # of their first operand
UPDATES = {'dynamic-update-slice': 1, 'scatter': 2}  # {what writes to a part of its first operand: which has the part}
REPEATS = 'broadcast', 'dot'  # what may take all of its operands for a part of its result
SAME = 'bitcast', 'tuple', 'get-tuple-element'  # no work of their own
LIBRARY, WORK = 'custom_call_target="__cu', re.compile(r'[su]8\[\d+\]\S*\)$')  # cuBLAS and cuDNN


def traffic(use: hlo.Use) -> int:
  """Bytes of operands and results, less the room that a library's kernel works in: the last that its call gives."""
  work = WORK.search(use.instruction.shape) if LIBRARY in use.instruction.attributes else None
  result = hlo.size(use.instruction.shape) - (hlo.size(work[0]) if work else 0)
  return sum(map(hlo.size, hlo.operand_shapes(use))) + result


def moved(use: hlo.Use) -> int:
  """Bytes that an instruction reads and writes: of a slice, which does not touch the rest of its operand, the slice."""
  if use.instruction.opcode in ('slice', 'dynamic-slice'):
    return 2 * hlo.size(use.instruction.shape)
  if use.instruction.opcode == 'dynamic-update-slice':
    return 2 * hlo.size(hlo.operand_shapes(use)[1])
  return traffic(use)


def moved_with_fusions(module: hlo.Module, use: hlo.Use) -> int:
  """The same, and of a fusion what its parts need of its operands."""
  called = use.instruction.called() if use.instruction.opcode in hlo.FUSIONS else []
  if not called:
    return moved(use)
  body = module.computations[called[0]]
  shares = of_parameters(module, body)
  read = sum(hlo.size(shape) * shares.get(number, 1) for number, shape in enumerate(hlo.operand_shapes(use)))
  return round(read) + sum(written(body, item) for item in roots(body))


def last(body: dict[str, hlo.Instruction]) -> list[hlo.Instruction]:
  """What nothing in a fusion takes."""
  taken = {name for item in body.values() for name in item.operands}
  found = [item for item in body.values() if item.name not in taken and item.opcode not in ('parameter', 'constant')]
  return found or list(body.values())[-1:]


def roots(body: dict[str, hlo.Instruction]) -> list[hlo.Instruction]:
  """What a fusion gives: instructions that nothing in it takes, a tuple in its parts, and what only looks different as
  what it is."""
  found, ahead = [], last(body)
  while ahead:
    item = ahead.pop()
    if item.opcode in SAME and item.operands and item.operands[0] in body:
      ahead.extend(body[name] for name in item.operands)
    else:
      found.append(item)
  return found


def written(body: dict[str, hlo.Instruction], item: hlo.Instruction) -> int:
  """Bytes that a root of a fusion writes."""
  return hlo.size(body[item.operands[UPDATES[item.opcode]]].shape if in_place(body, item) else item.shape)


def in_place(body: dict[str, hlo.Instruction], item: hlo.Instruction) -> bool:
  """Whether a root of a fusion only writes a part of what is there already."""
  if item.opcode not in UPDATES:
    return False
  into = body[item.operands[0]]
  while into.opcode == 'bitcast':
    into = body[into.operands[0]]
  return into.opcode == 'parameter'


def of_parameters(module: hlo.Module, body: dict[str, hlo.Instruction]) -> dict[int, float]:
  """The share of each operand of a fusion that its results need, by the operand's number."""
  needed = needs(module, body)
  return {int(item.literal): needed[item.name] for item in body.values() if item.opcode == 'parameter'}


def needs(module: hlo.Module, body: dict[str, hlo.Instruction]) -> dict[str, float]:
  """The share of each instruction's elements that a fusion's results need."""
  updating = {item.name for item in roots(body) if in_place(body, item)}
  needed = dict.fromkeys(body, 0.0) | {item.name: 1.0 for item in last(body)}
  for item in reversed(body.values()):  # an instruction stands after what it takes
    within = of_parameters(module, module.computations[item.called()[0]]) if (
        item.opcode in hlo.FUSIONS and item.called()) else {}
    for place, name in enumerate(item.operands):
      share = within.get(place, 1.0) * (needed[item.name] > 0) if within else needed[item.name]
      if place == 0 and item.opcode in SLICES:
        share *= hlo.size(item.shape) / max(hlo.size(body[name].shape), 1)
      elif place == 0 and item.name in updating:
        share = 0.0
      elif item.opcode in REPEATS:
        share = float(share > 0)
      needed[name] = min(needed[name] + share, 1.0)
  return needed
