"""`bert-jax supervise`: a training command, started again after what a restart may mend."""

import dataclasses

from bert_jax.errors import ConfigError, require
from input_pipeline.ranges import CountOrNone, Seconds
from launch import supervise as supervising
from launch.commands import flags

SUPERVISED = 'pretrain', 'finetune'


@dataclasses.dataclass(frozen=True)
class Supervise:
  """Run `bert-jax supervise [settings] -- pretrain …`: the command after -- is started again after kill -9, failed
  storage, a lost peer or a hang, and goes on from its last checkpoint. What a restart cannot mend ends it."""
  fruitless: CountOrNone = supervising.FRUITLESS
  """Restarts in a row without a new checkpoint, after which it gives up."""
  wait_seconds: Seconds = supervising.WAIT_SECONDS
  """Before the first restart; twice as long before each further one without a new checkpoint, up to five minutes."""
  attempt: CountOrNone = 0
  """How often a launcher has started this before; with it restarts without a new checkpoint are counted over all of its
  starts."""
  dry_run: bool = False
  """Read the command's recipe and flags, say what is wrong with them, and start nothing: for launchers, before anything
  costs money."""


def supervise(argv: list[str]) -> int:
  """The exit code of the command's last try, or GAVE_UP."""
  own, command = flags.parted(argv)
  args = flags.parse(Supervise, own, 'supervise')
  found = command[0] if command else 'nothing'
  if found not in SUPERVISED:
    raise ConfigError(f'there is {found} after --: wanted `bert-jax supervise -- pretrain …` or `-- finetune …`')
  run_dir = run_dir_of(command)
  if args.dry_run:
    require(len(command) > 1 and not flags.asks_for_help(command[1:]), f'there is no run to `{" ".join(command)}`')
    from launch.commands import training
    read = {'pretrain': training.pretrain_settings, 'finetune': training.finetune_settings}
    read[found](command[1:])
    return 0
  return supervising.Supervisor(command, run_dir, args.fruitless, args.wait_seconds, args.attempt).run()


def run_dir_of(command: list[str]) -> str:
  """The value of --run-dir. Raises ConfigError where it is not given."""
  for place, word in enumerate(command):
    name, equals, value = word.partition('=')
    if name.replace('_', '-') == '--run-dir':
      if equals:
        return value
      if place + 1 < len(command):
        return command[place + 1]
  raise ConfigError('the command after -- has no --run-dir: it is where a restart goes on')
