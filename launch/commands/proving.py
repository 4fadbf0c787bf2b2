"""`bert-jax selftest`: our own kernels beside plain JAX, where they will run."""

import dataclasses
import sys
from typing import Annotated

import tyro

from bert_jax.config import Config
from bert_jax.errors import ConfigError
from launch.commands import flags

USAGE = '''usage: bert-jax selftest RECIPE [--model.… --batch.… --mesh.…]

Compares the kernels that `bert-jax pretrain RECIPE` would use on this machine with plain JAX, which every run does for
itself when it starts.'''


@dataclasses.dataclass(frozen=True)
class SelfTest:
  """One layer by our own kernels beside plain JAX on this machine: value, gradient, and that pairs do not mix."""
  config: Annotated[Config, tyro.conf.arg(name='')]
  """The step that `pretrain` would run; its fields are flags without a name in front."""
  json: bool = False
  """One JSON object on stdout and nothing else there."""


def selftest(argv: list[str]) -> int:
  """Prints each comparison; 0 where all pass or there is nothing to compare."""
  if flags.asks_for_help(argv):
    return flags.show_recipes(USAGE, 'selftest', argv)
  from bert_jax import recipes
  idle = dict.fromkeys(flags.ONLY_IN_A_RUN, 'in a test of kernels, which takes no steps')
  args = flags.parse(SelfTest, argv[1:], f'selftest {argv[0]}', SelfTest(recipes.recipe(argv[0])), lambda _: idle)
  from bert_jax import choices, phases, program, selftest
  config = choices.by_rule(args.config)
  mesh = program.mesh_of(config)
  device, place = mesh.devices.flat[0], program.place_of(mesh)
  report = selftest.run(config.model, place, [phase.config.batch.sequence_length for phase in phases.phases(config)])
  if args.json:
    print(flags.as_json(dataclasses.asdict(report) | {'failures': report.failures, 'device': device.device_kind}))
  else:
    print('\n'.join([f'{"ok  " if item.passed else "FAIL"} {item.text()}' for item in report.findings]
                    + report.failures[:bool(report.error)]
                    + ([] if report.findings or report.error else [
                        f'{args.config.model.attention} attention on {device.device_kind} is not a kernel of ours: '
                        'there is nothing to compare'])))
    print(f'{device.device_kind}: {len(report.findings)} comparisons, {len(report.failures)} failed, '
          f'{report.seconds:.1f} s', file=sys.stderr)
  return ConfigError.exit_code if report.failures else 0
