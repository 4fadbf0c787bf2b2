"""Standard streams that end no command: of any encoding, closed, full, or a pipe whose reader has left.

Standard error tells how things go: where it cannot be written, nothing is told, and the work goes on. So it is with the
standard output of a training, whose results are files. Of other commands it is what was asked for.
"""

import codecs
import io
import os
import sys
from collections.abc import Callable

ESCAPES = 'bert_jax_escapes'  # a handler of codecs: \u2026 for what an encoding lacks, as JSON and Python read it
TRAINS = 'pretrain', 'finetune', 'supervise', 'sweep'
_STANDARD = 3  # descriptors
# What keeps TensorFlow, which only reads and shuffles here, from telling how it computes.
QUIET = {'TF_CPP_MIN_LOG_LEVEL': '2', 'TF_ENABLE_ONEDNN_OPTS': '0'}


class Patient(io.RawIOBase):
  """A descriptor that takes all it is given, and drops what it cannot write."""

  def __init__(self, descriptor: int):
    self.descriptor = descriptor

  def writable(self) -> bool:
    return True

  def fileno(self) -> int:
    return self.descriptor

  def isatty(self) -> bool:
    return os.isatty(self.descriptor)

  def write(self, data) -> int:
    left = memoryview(data).cast('B')
    try:
      while left:
        left = left[os.write(self.descriptor, left):]
    except OSError:
      pass
    return len(data)


def escaped(error: UnicodeError) -> tuple[str, int]:
  """The handler ESCAPES."""
  if not isinstance(error, UnicodeEncodeError):
    raise error
  units = error.object[error.start:error.end].encode('utf-16-be', 'surrogatepass')
  return ''.join(f'\\u{units[i]:02x}{units[i + 1]:02x}' for i in range(0, len(units), 2)), error.end


def set_up(argv: list[str]) -> None:
  """Makes the process' own streams so, for a command line. Those that somebody has put in their place stay."""
  trains = argv[:1] and argv[0] in TRAINS and not {'-h', '--help'} & set(argv)
  codecs.register_error(ESCAPES, escaped)
  _fill()
  if sys.stdin is sys.__stdin__ and isinstance(sys.stdin, io.TextIOWrapper):
    sys.stdin.reconfigure(encoding='utf-8', errors='surrogateescape')
  _set_up('stderr', 2, patient=True)
  _set_up('stdout', 1, patient=bool(trains))


def _fill() -> None:
  """Where a standard descriptor is closed, the next file that is opened would get its number, and what is printed."""
  while (descriptor := os.open(os.devnull, os.O_RDWR)) < _STANDARD:
    os.set_inheritable(descriptor, True)
  os.close(descriptor)


def _set_up(name: str, descriptor: int, patient: bool) -> None:
  stream = getattr(sys, name)
  if stream is not getattr(sys, f'__{name}__'):
    return
  if isinstance(stream, io.TextIOWrapper) and not patient:
    stream.reconfigure(errors=ESCAPES)
    return
  encoding = getattr(stream, 'encoding', None) or 'utf-8'
  made = io.TextIOWrapper(io.BufferedWriter(Patient(descriptor)), encoding, ESCAPES, line_buffering=True,
                          write_through=descriptor == 2)
  setattr(sys, name, made)
  setattr(sys, f'__{name}__', made)


def finish(say: Callable[[str], object], full: int) -> int:
  """Writes what is left of standard output. Returns 0, also where its reader has left; `full`, after a sentence, where
  it cannot be written."""
  try:
    if sys.stdout is not None:
      sys.stdout.flush()
    return 0
  except BrokenPipeError:
    code = 0
  except OSError as error:
    say(f'standard output: {error.strerror}: not all of it is there')
    code = full
  drop()
  return code


def is_of_output(error: BaseException) -> bool:
  """Whether standard output could not be written: an error of the system that names no file."""
  return isinstance(error, OSError) and error.filename is None


def drop() -> None:
  """Sends what is still to be printed nowhere: Python would try again, and complain, when it ends."""
  null = os.open(os.devnull, os.O_WRONLY)
  os.dup2(null, 1)
  os.close(null)
