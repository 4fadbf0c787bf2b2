"""Reads the text of a compiled program: instructions, how often each runs, and the FLOPs of its products.

The text is a list of computations; one is the entry, and the others are called by instructions:

  %body (s: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
    %x = f32[4,8]{1,0} get-tuple-element(%s), index=1
    %d = f32[4,4]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={1}, metadata={op_name="jit(f)/dot"}
  }
  ENTRY %main (a: f32[4,8]) -> f32[4,8] {
    %w = (s32[], f32[4,8]) while(%t), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"24"}}

An instruction is a name, the shape of its result, an opcode, its operands, and attributes. {1,0} after a shape is the
order of its axes in memory, which is not read.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

import numpy as np

BITS = {'pred': 8, 's4': 4, 'u4': 4, 's8': 8, 'u8': 8, 's16': 16, 'u16': 16, 's32': 32, 'u32': 32, 's64': 64, 'u64': 64,
        'bf16': 16, 'f16': 16, 'f32': 32, 'f64': 64, 'c64': 64, 'c128': 128}
ARRAY = re.compile(r'\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]')
FUSIONS = 'fusion', 'fusion-start'  # the second runs beside others, up to its fusion-done
CALLED = re.compile(r'(?:calls|to_apply|body|called_computations|branch_computations|true_computation|'
                    r'false_computation)=(\{[^}]*\}|%?[\w.\-]+)')


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation."""
  name: str
  shape: str  # 'f32[8,128]{1,0}', or a tuple of such in parentheses
  opcode: str
  operands: tuple[str, ...]  # names
  literal: str  # what stands between the opcode's parentheses
  attributes: str  # what follows them

  @property
  def op_name(self) -> str:
    """The name that JAX gave to what this came from; its own where there is none."""
    found = re.search(r'op_name="([^"]*)"', self.attributes)
    return found[1] if found else self.name

  def called(self) -> list[str]:
    """Names of the computations that it runs; a comparator or a reduction's function among them."""
    return [name for group in CALLED.findall(self.attributes) for name in re.findall(r'[\w.\-]+', group)]


@dataclasses.dataclass(frozen=True)
class Module:
  """A compiled program: the instructions of every computation, by its name."""
  entry: str
  computations: dict[str, dict[str, Instruction]]


@dataclasses.dataclass(frozen=True)
class Use:
  """An instruction where the program runs it."""
  instruction: Instruction
  scope: dict[str, Instruction]  # its computation, in which its operands are
  computation: str
  times: int  # in one run of the program
  scheduled: bool  # takes its turn; else it is a part of the fusion that does, or runs beside others
  asynchronous: bool  # inside an async-start


def parse(text: str) -> Module:
  """The computations of `compiled.as_text()`."""
  computations, entry, current = {}, '', None
  for line in text.splitlines():
    if line[:1] in ('%', 'E') or (line[:1].isalpha() and line.endswith('{') and '->' in line):
      header = re.match(r'(ENTRY )?%?([\w.\-]+) ', line)
      if header and line.endswith('{'):
        current = computations.setdefault(header[2], {})
        entry = header[2] if header[1] else entry
    elif current is not None and line.startswith('  '):
      instruction = parse_line(line)
      if instruction:
        current[instruction.name] = instruction
  return Module(entry, computations)


def parse_line(line: str) -> Instruction | None:
  """'%d = f32[4,4]{1,0} dot(%x, %x), …' as name, shape, opcode, operands, attributes; None of a line without `=`."""
  name, equals, rest = line.strip().removeprefix('ROOT ').partition(' = ')
  if not equals:
    return None
  end = closing(rest, 0) + 1 if rest.startswith('(') else rest.index(' ')
  shape, rest = rest[:end], rest[end:].strip()
  start = rest.index('(')
  end = closing(rest, start)
  literal = rest[start + 1:end]
  operands = tuple(re.findall(r'%([\w.\-]+)', literal))
  return Instruction(name.lstrip('%'), shape, rest[:start], operands, literal, rest[end + 1:])


def closing(text: str, start: int) -> int:
  """Where the parenthesis that opens at `start` closes."""
  depth = 0
  for match in re.compile(r'[()]').finditer(text, start):
    depth += 1 if match[0] == '(' else -1
    if depth == 0:
      return match.start()
  return len(text)


def arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
  """[('bf16', (8, 128)), …] of a shape, or of a tuple of them."""
  found = ((kind, dims) for kind, dims in ARRAY.findall(shape) if kind in BITS or kind.startswith('f8'))
  return [(kind, tuple(int(n) for n in dims.split(',') if n)) for kind, dims in found]


def size(shape: str) -> int:
  """Bytes, layout padding left out."""
  return sum(math.prod(dims) * BITS.get(kind, 8) // 8 for kind, dims in arrays(shape))


def operand_shapes(use: Use) -> list[str]:
  """['f32[4,8]{1,0}', …] in the order of the operands."""
  return [use.scope[name].shape for name in use.instruction.operands if name in use.scope]


def uses(module: Module) -> Iterator[Use]:
  """Every instruction that the program runs, with how often.

  Of a conditional every branch counts; a loop whose trips are unknown counts once.
  """
  def visit(name, times, scheduled, asynchronous):
    scope = module.computations.get(name, {})
    for instruction in scope.values():
      yield Use(instruction, scope, name, times, scheduled, asynchronous)
      op = instruction.opcode
      inside = times * (trip_count(module, instruction) or 1) if op == 'while' else times
      if op in ('while', 'call', 'conditional', *FUSIONS, 'async-start', 'custom-call'):
        by_turns, beside = scheduled and op not in (*FUSIONS, 'async-start'), asynchronous or op == 'async-start'
        for called in instruction.called():
          if f'condition=%{called}' not in instruction.attributes:
            yield from visit(called, inside, by_turns, beside)
  yield from visit(module.entry, 1, True, False)


def trip_count(module: Module, loop: Instruction) -> int | None:
  """How often the body of a `while` runs: what the compiler noted, else the limit of its condition; None: unclear.

  That limit is 24 in a condition like this one. JAX's scans count from 0 by 1, and so do the unsigned counters of the
  loops that TPU's compiler makes of large reshapes:

    %limit = s32[] constant(24)
    ROOT %less = pred[] compare(%i, %limit), direction=LT
  """
  known = re.search(r'"?known_trip_count"?:\{"n":"?(\d+)', loop.attributes)
  if known:
    return int(known[1])
  condition = re.search(r'condition=%?([\w.\-]+)', loop.attributes)[1]
  fusions = [item for item in module.computations[condition].values() if item.opcode == 'fusion']
  names = [condition, *(name for item in fusions for name in item.called())]
  items = [item for name in names for item in module.computations[name].values()]
  limits = [int(item.literal) for item in items if item.opcode == 'constant' and re.match(r'[su]32\[\]', item.shape)]
  return limits[0] if len(limits) == 1 and any('direction=LT' in item.attributes for item in items) else None


# ---------------------------------------------------------------- floating point operations


def flops(use: Use) -> int:
  """Of one run of a product: 2 per multiply-add of a dot or a convolution, 0 of anything else.

  TPU's compiler turns batched products into convolutions with dilated or padded operands, as 8 products of [128 64]
  with [64 128]. Multiplications by the zeros between do not count:

    %c = bf16[8,128,128] convolution(%q, %k), window={size=8 stride=7 lhs_dilate=8}, dim_labels=0bf_0oi->0bf

  On a GPU a product may be a call of cuBLAS:

    %g = (bf16[16,8], s8[4096]) custom-call(%x, %y), custom_call_target="__cublas$lt$matmul", backend_config={
      "gemm_backend_config":{…"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],…
  """
  instruction = use.instruction
  if instruction.opcode == 'custom-call' and 'custom_call_target="__cublas$' in instruction.attributes:
    (_, left), (_, result) = arrays(operand_shapes(use)[0])[0], arrays(instruction.shape)[0]
    contracted = re.search(r'"lhs_contracting_dimensions": ?\[([^\]]*)\]', instruction.attributes)
    return 2 * math.prod(result) * math.prod(left[int(i)] for i in re.findall(r'\d+', contracted[1]))
  if instruction.opcode == 'dot':
    (_, left), (_, result) = arrays(operand_shapes(use)[0])[0], arrays(instruction.shape)[0]
    contracted = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', instruction.attributes)
    return 2 * math.prod(result) * math.prod(left[int(i)] for i in contracted[1].split(',') if i)
  if instruction.opcode == 'convolution':
    left, right = (arrays(shape)[0][1] for shape in operand_shapes(use)[:2])
    return convolution_flops(left, right, arrays(instruction.shape)[0][1], instruction.attributes)
  return 0


def convolution_flops(left: tuple[int, ...], right: tuple[int, ...], result: tuple[int, ...], attributes: str) -> int:
  """left 'b01f', right '01io', result 'b01f' in the order that dim_labels gives."""
  of_left, of_right, of_result = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', attributes).groups()
  window = dict(re.findall(r'(\w+)=([\dx_\-]+)', (re.search(r'window=\{([^}]*)\}', attributes) or ('', ''))[1]))
  spatial = sorted(label for label in of_left if label.isdigit())
  along = lambda key, default: window.get(key, 'x'.join([default] * len(spatial))).split('x')
  count = result[of_result.index('b')] * result[of_result.index('f')] * right[of_right.index('i')]
  for place, label in enumerate(spatial):
    low = int(along('pad', '0_0')[place].split('_')[0])
    count *= pairs(left[of_left.index(label)], right[of_right.index(label)], result[of_result.index(label)], low,
                   *(int(along(key, '1')[place]) for key in ('stride', 'lhs_dilate', 'rhs_dilate')))
  groups = re.search(r'batch_group_count=(\d+)', attributes)
  return 2 * count // (int(groups[1]) if groups else 1)


@functools.cache
def pairs(length: int, taps: int, results: int, low: int, stride: int, dilation: int, step: int) -> int:
  """(result, tap) pairs of one spatial axis that fall on an element, not on padding or between dilated ones."""
  first = np.arange(results) * stride - low
  total = 0
  for tap in range(taps):
    place = first + tap * step
    total += int(((place >= 0) & (place < (length - 1) * dilation + 1) & (place % dilation == 0)).sum())
  return total
