"""Custom kernels of a compiled program, of which its compiler knows no time, from its text (hlo.py).

One may tell its FLOPs, ours for GPUs in their metadata; cuDNN's of attention are known by their operands as well:

  %k = bf16[256,512] custom-call(%x), custom_call_target="tpu_custom_call",
    backend_config={…"cost_estimate":{"flops":"1000000000"…}…}
  %a = (bf16[4,256,8,64], f32[4,8,256]) custom-call(%qkv, %ids), custom_call_target="__gpu$xla.gpu.triton",
    backend_config={… serialized_metadata = "{\\22flops\\22: \\22536870912\\22}"}
"""

import collections
import dataclasses
import json
import math
import re

from launch.plan import hlo, traffic

CUSTOM_CALL = re.compile(r'custom_call_target="([^"]*)"')
TOLD = re.compile(r'flops(?:\\22|\\?"): (?:\\22|\\?")(\d+)')  # "flops": "123" as one or another text writes quotes
# How their names begin.
KERNELS = re.compile(r'tpu_custom_call|__gpu\$xla\.gpu\.triton|triton_kernel_call|mosaic_gpu|__cudnn\$')
FORWARD, BACKWARD = 2, {1: 3, 2: 4}  # products of attention; backward by how many of three gradients a kernel gives
ALL_BACKWARD = 5
SHARE_OF_PEAK = 0.5  # that a custom kernel reaches


@dataclasses.dataclass(frozen=True)
class Kernel:
  """A custom kernel, of which the compiler knows no time."""
  op_name: str
  times: int
  flops: int  # of one run: by its own cost estimate, else as `attention_flops` reads it from its operands
  bytes: int  # of its operands and results in one run

  def seconds(self, peak: float, memory_rate: float) -> float:
    """Of one run: the longer of its FLOPs at SHARE_OF_PEAK of `peak` and its bytes at `memory_rate`."""
    return max(self.flops / (peak * SHARE_OF_PEAK), self.bytes / memory_rate)


def target(use: hlo.Use) -> str:
  """The name of what a custom call calls; nothing of other instructions."""
  found = use.instruction.opcode == 'custom-call' and CUSTOM_CALL.search(use.instruction.attributes)
  return found[1] if found else ''


def is_one(use: hlo.Use) -> bool:
  return KERNELS.match(target(use)) is not None


def of(use: hlo.Use) -> Kernel:
  """A custom kernel, its FLOPs by its own estimate where it has one."""
  found = re.search(r'"cost_estimate":(\{[^}]*\})', use.instruction.attributes)
  told = TOLD.search(use.instruction.attributes)
  count = int(told[1]) if told else (
      int(json.loads(found[1]).get('flops', 0)) if found else attention_flops(use))
  return Kernel(use.instruction.op_name, use.times, count, traffic.traffic(use))


def attention_flops(use: hlo.Use) -> int:
  """A guess for a kernel that gives no estimate: attention, where three operands or more share a shape [… T K] or
  [… T H K], T more than H.

  These are queries, keys and values. Each product of T rows with T others is 2 T T K: two of them forward, and five
  backward, which has a gradient as operand too; three of them where it gives one gradient, four where it gives two.
  """
  operands = [dims for shape in hlo.operand_shapes(use) for _, dims in hlo.arrays(shape)]
  shapes = collections.Counter(dims for dims in operands if len(dims) > 2)
  shape, count = shapes.most_common(1)[0] if shapes else ((), 0)
  if count < 3:
    return 0
  results = [sorted(dims) for _, dims in hlo.arrays(use.instruction.shape)].count(sorted(shape))
  products = FORWARD if count == 3 else BACKWARD.get(results, ALL_BACKWARD)
  return products * 2 * math.prod(shape) * max(shape[1:-1])
