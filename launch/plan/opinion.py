"""A second opinion on a TPU's step, beside its compiler's cycles: the least time that each kernel's work takes.

Of what a kernel multiplies at the peak, moves at nine tenths of the memory's rate and computes element by element at
the vector unit's, the longest counts. The compiler's estimates of what only moves memory assume less than half of its
rate, so where the two differ much, neither is a promise. What lies in the chip's fast memory, S(1), moves for nothing;
that it is brought there beside other work is not counted:

  %f = f32[8,128]{1,0:T(8,128)} fusion(f32[8,128]{1,0:T(8,128)S(1)} %x), kind=kLoop, calls=%c
"""

import collections
import dataclasses
import re
from collections.abc import Iterator, Sequence

from bert_jax.chips import Chip
from launch.plan import hlo, kernels, roofline, traffic

LIMITS = PRODUCTS, MEMORY, VECTOR = 'products', 'memory', 'vector'
# Operations of the vector unit an element. One unit of it in four has exp, tanh and roots; erf is a polynomial: by the
# compiler's cycles (libtpu 0.0.42, v6e) GELU by it takes 22 an element.
SLOW = dict.fromkeys(('exponential', 'exponential-minus-one', 'tanh', 'log', 'log-plus-one', 'rsqrt', 'sqrt', 'divide',
                      'power', 'logistic'), 4) | {'erf': 12}
ONCE = ('add', 'subtract', 'multiply', 'maximum', 'minimum', 'compare', 'select', 'and', 'or', 'xor', 'not', 'negate',
        'abs', 'sign', 'clamp', 'convert', 'shift-left', 'shift-right-logical', 'shift-right-arithmetic', 'floor',
        'ceil', 'round-nearest-even', 'is-finite')
WEIGHTS = dict.fromkeys(ONCE, 1) | SLOW
FAST = re.compile(r'\b[a-z]+\d*\[[\d,]*\](\{[^{}]*S\(1\)[^{}]*\})')  # an array that lies in the fast memory


@dataclasses.dataclass(frozen=True)
class Work:
  """What one kernel does in one run."""
  op_name: str
  times: int
  flops: int
  bytes: int
  operations: int  # of the vector unit
  cycles: int | None  # that the compiler expects

  def least(self, chip: Chip, each: int) -> dict[str, float]:
    """Seconds by what limits; `each`: devices that share a chip."""
    assert chip.memory_rate and chip.vector
    rate = chip.memory_rate * roofline.SHARE_OF_RATE
    return {PRODUCTS: self.flops * each / chip.peak, MEMORY: self.bytes * each / rate,
            VECTOR: self.operations * each / chip.vector}


def works(text: str, module: hlo.Module, used: Sequence[hlo.Use], cycles) -> Iterator[Work]:
  """Every kernel of a program whose time its compiler tells, and ours. `cycles`: of an instruction's attributes."""
  slow = hlo.parse(FAST.sub(r'pred[0]\1', text))  # only what lies in the slow memory
  for use in used:
    item = use.instruction
    if use.scheduled and (cycles(item.attributes) is not None or kernels.is_one(use)):
      found, scope = roofline.launch(module, use), slow.computations[use.computation]
      there = dataclasses.replace(use, instruction=scope[item.name], scope=scope)
      moved = traffic.traffic(there) if found.kind == roofline.CUSTOM else traffic.moved_with_fusions(slow, there)
      yield Work(found.op_name, found.times, found.flops, moved, operations(module, use), cycles(item.attributes))


def operations(module: hlo.Module, use: hlo.Use) -> int:
  """Element by element, of an instruction and of the fusions that it is made of."""
  item = use.instruction
  if item.opcode in hlo.FUSIONS:
    return sum(operations(module, dataclasses.replace(use, instruction=part, scope=module.computations[name]))
               for name in item.called() for part in module.computations[name].values())
  if item.opcode == 'reduce':
    return elements(hlo.operand_shapes(use)[:1])
  return WEIGHTS.get(item.opcode, 0) * elements([item.shape])


def elements(shapes: Sequence[str]) -> int:
  total = 0
  for shape in shapes:
    for _, dims in hlo.arrays(shape):
      count = 1
      for size in dims:
        count *= size
      total += count
  return total


def of(found: Sequence[Work], chip: Chip, each: int, count: int = 5) -> dict:
  """{'seconds' of all, 'limits': seconds by what limits, 'differ': op_name, seconds by the compiler and least, of the
  kernels that differ most}."""
  limits, names = collections.Counter(dict.fromkeys(LIMITS, 0.0)), {}
  for item in found:
    least = item.least(chip, each)
    what = max(least, key=lambda limit: least[limit])
    limits[what] += item.times * least[what]
    if item.cycles is not None:
      theirs, ours = names.get(item.op_name, (0.0, 0.0))
      names[item.op_name] = theirs + item.times * item.cycles / chip.clock, ours + item.times * least[what]
  differ = sorted(names.items(), key=lambda pair: -abs(pair[1][0] - pair[1][1]))[:count]
  return dict(seconds=sum(limits.values()), limits=dict(limits),
              differ=tuple(dict(op_name=name, seconds=theirs, least=ours) for name, (theirs, ours) in differ))
