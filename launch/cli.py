"""The `bert-jax` command: finds the subcommand, and turns what happens into an exit code.

0: done. 1: a bug, with its traceback. STOPPED: asked to stop, and saved. INTERRUPTED: Ctrl-C. Any other stands on the
class of an error that is expected, as `exit_code` (bert_jax/errors.py, input_pipeline/errors.py).
"""

import codecs
import locale
import os
import sys
import traceback
import warnings

from bert_jax.errors import STOPPED, UNSAVED, CheckpointError, ConfigError
from launch import extras, streams, without_gpu, without_tpu
from launch.commands.table import COMMANDS

# glibc gives large arrays back to the kernel and faults them in again at every step; with huge pages a step on CPU
# takes a third less, and `prepare` a tenth.
HUGE_PAGES = 'GLIBC_TUNABLES', 'glibc.malloc.hugetlb=1'
UTF8_MODE = 'PYTHONUTF8'  # what Python takes it from
COMPUTES = ('prepare', 'pretrain', 'finetune', 'evaluate', 'predict', 'import', 'export', 'fill-mask', 'features',
            'score', 'next-sentence', 'benchmark')
INTERRUPTED = 130  # as shells say it: 128 and the number of SIGINT


def start() -> None:
  """The console command. One that computes starts again with huge pages, which glibc wants to know at the start, and
  any where files would be read and written in another encoding than UTF-8."""
  name, value = HUGE_PAGES
  changes = {}
  if sys.argv[1:2] and sys.argv[1] in COMPUTES and sys.platform == 'linux' and name not in os.environ:
    changes[name] = value
  if not sys.flags.utf8_mode and codecs.lookup(locale.getencoding()).name != 'utf-8':
    changes[UTF8_MODE] = '1'
  if changes:
    os.environ |= changes
    os.execv(sys.executable, [sys.executable, '-P', '-m', 'bert_jax_command', *sys.argv[1:]])
  main()


def main() -> None:
  """Runs a command line; an expected error is one sentence on stderr and its exit code."""
  streams.set_up(sys.argv[1:])
  for name, value in streams.QUIET.items():
    os.environ.setdefault(name, value)
  without_tpu.keep_quiet()
  without_gpu.keep_quiet()
  warnings.formatwarning = lambda message, *_, **__: f'bert-jax: {one_line(message)}\n'
  say = lambda text: print(f'bert-jax: {one_line(text)}', file=sys.stderr)
  code: int | str | None
  try:
    code = run(sys.argv[1:])
  except SystemExit as ended:  # of --help, and of flags that are wrong
    code = 0 if ended.code is None else ended.code
  except KeyboardInterrupt:
    code = INTERRUPTED
  except BrokenPipeError:  # the reader has enough, as `head` has
    streams.drop()
    code = 0
  except Exception as error:
    missing = extras.missing(error) or no_device(error)
    code = ConfigError.exit_code if missing else exit_code(error)
    if code is None:
      raise
    say(missing or sentence(error))
    if streams.is_of_output(error):
      streams.drop()
  code = streams.finish(say, CheckpointError.exit_code) or code
  if code not in (0, STOPPED, UNSAVED) and 'bert_jax.distributed' in sys.modules:
    sys.modules['bert_jax.distributed'].leave(code)
  if code == CheckpointError.exit_code:  # threads that wait for the storage that failed would keep the process
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)


def no_device(error: Exception) -> str | None:
  """A sentence where JAX was asked for devices that are not there; None of any other error."""
  platforms, frames = os.environ.get('JAX_PLATFORMS'), traceback.extract_tb(error.__traceback__)
  if not platforms or hasattr(error, 'exit_code') or not frames or not frames[-1].filename.endswith('xla_bridge.py'):
    return None
  said = next(iter(str(error).splitlines()), type(error).__name__)
  return (f'JAX_PLATFORMS is {platforms!r}, and JAX finds no such device here ({said:.200}): unset it, or name what is '
          'here, such as cpu')


def exit_code(error: Exception) -> int | None:
  """The exit code that stands on the class of an expected error; None of a bug."""
  if isinstance(error, OSError) and error.errno is not None and not hasattr(error, 'exit_code'):
    return CheckpointError.exit_code
  return getattr(error, 'exit_code', None)


def sentence(error: Exception) -> str:
  """What is said of an expected error; of one of the system, on which file."""
  if isinstance(error, OSError) and not hasattr(error, 'exit_code') and error.errno is not None:
    files = ' and '.join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return f'{files or "a file or device"}: {error.strerror}; see to it, and run the same command again'
  return str(error)


def one_line(text: object) -> str:
  """The text with escapes in the place of what moves a terminal's cursor, as names of files may hold it."""
  return ''.join(c if c.isprintable() else c.encode('unicode_escape', 'surrogatepass').decode() for c in str(text))


def run(argv: list[str]) -> int:
  """The exit code of one command line."""
  if not argv or argv[0] in ('-h', '--help', 'help'):
    print('usage: bert-jax COMMAND …\n\nThe way from text to a trained encoder, command by command:')
    print('\n'.join(f'  {name:<13} {command.__doc__.splitlines()[0]}' for name, command in COMMANDS.items()))
    print('\n`bert-jax COMMAND --help` shows every setting with its default; `bert-jax --version` says what runs.')
    return 0 if argv else ConfigError.exit_code
  if argv[0] == '--version':
    print(version())
    return 0
  if argv[0] not in COMMANDS:
    from launch.commands.unknown import listed, unknown
    later = next((f': write it first, `bert-jax {word} {argv[0]} …`' for word in argv[1:] if word in COMMANDS), '')
    if argv[0].startswith('-'):
      raise ConfigError(f'no command stands before {argv[0]}{later or f": wanted one of {listed(COMMANDS)}"}')
    raise ConfigError(unknown('command', argv[0], COMMANDS))
  return COMMANDS[argv[0]](argv[1:])


def version() -> str:
  """A line for the project, each package under it, Python and, of a checkout, its commit."""
  from bert_jax import versions
  found = versions.versions() | {'commit': versions.commit()}
  return '\n'.join(f'{name} {value}' for name, value in found.items() if value)


if __name__ == '__main__':
  start()
