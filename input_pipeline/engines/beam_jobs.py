"""Pipelines of Apache Beam as jobs: what stands after --, where a runner's words go, what is told of a failure."""

import contextlib
import difflib
import functools
import io
import logging
import sys
from collections.abc import Callable

from input_pipeline import records
from input_pipeline.engines import failures, probing

# Runners whose job server, elsewhere, has flags of its own: what Beam does not know is handed on to them.
_WITH_FLAGS_OF_THEIR_OWN = ('portable', 'flink', 'spark', 'prism')
_LOGGERS = 'apache_beam', 'root', 'grpc', 'google', 'urllib3'
_BRING = 'a container image with it, or --setup_file'


def options(arguments: tuple[str, ...]):
  """Beam's options of what stands after --. Raises DataError for what Beam would ignore, or cannot find."""
  # as it is imported it tells what it could do with more packages
  with failures.told_to(logging.NullHandler(), _LOGGERS):
    return _options(arguments)


def _options(arguments: tuple[str, ...]):
  try:
    import apache_beam  # noqa: F401
    from apache_beam.options import pipeline_options, pipeline_options_validator
    from apache_beam.runners import runner as runners
  except ImportError as error:
    raise records.DataError(f"--engine beam needs Apache Beam ({error}): pip install 'bert_jax[beam]'") from error
  parser = pipeline_options._BeamArgumentParser(allow_abbrev=False, add_help=False)
  for kind in {kind.__name__: kind for kind in pipeline_options.PipelineOptions.__subclasses__()}.values():
    kind._add_argparse_args(parser)
  if arguments and not arguments[0].startswith('--'):
    raise _stray(arguments[0])
  try:
    with contextlib.redirect_stderr(said := io.StringIO()):
      known, unknown = parser.parse_known_args(list(arguments))
  except SystemExit as error:
    why = said.getvalue().strip().rpartition('error: ')[2]
    raise records.DataError(f'after --: {why}: wanted flags of Apache Beam') from error
  made = pipeline_options.PipelineOptions(list(arguments))
  name = made.view_as(pipeline_options.StandardOptions).runner or pipeline_options.StandardOptions.DEFAULT_RUNNER
  own = any(part in name.lower() for part in _WITH_FLAGS_OF_THEIR_OWN)
  for place, word in enumerate(unknown):
    if not word.startswith('-') and not (own and place and unknown[place - 1].startswith('--')):
      raise _stray(word)
    if word.startswith('-') and not own:
      flag = word.partition('=')[0]
      close = difflib.get_close_matches(flag, parser._option_string_actions, 1)
      raise records.DataError(f'after --: Apache Beam has no flag {flag}'
                              f'{f"; did you mean {close[0]}?" if close else ": leave it out"}')
  try:
    runner = runners.create_runner(name)
    _check_dataflow(runner)
  except ImportError as error:
    needs = "pip install 'apache-beam[gcp]'" if 'gcp' in str(error) else 'install what it needs'
    raise records.DataError(f'after --: --runner={name} cannot be used here ({error}): {needs}') from error
  except (ValueError, AttributeError) as error:
    raise records.DataError(f'after --: --runner={name} is none of Apache Beam\'s: wanted one of '
                            f'{", ".join(pipeline_options.StandardOptions.KNOWN_RUNNER_NAMES)}') from error
  if wrong := pipeline_options_validator.PipelineOptionsValidator(made, runner).validate():
    raise records.DataError(f'after --: {" ".join(" ".join(map(str, wrong)).split())}')
  return made


def _check_dataflow(runner) -> None:
  """Raises ImportError where the runner is Dataflow's, and lacks what would be noticed only when the job is sent."""
  module = sys.modules[type(runner).__module__]
  if '.dataflow.' not in module.__name__:
    return
  try:
    from apache_beam.runners.dataflow.internal import apiclient  # noqa: F401
  except ImportError as error:
    raise ImportError('it needs apache_beam[gcp]') from error


def _stray(word: str) -> records.DataError:
  return records.DataError(f'after --: {word} is no flag, and belongs to none: wanted flags of Apache Beam, such as '
                           '--runner=DataflowRunner')


def run(build: Callable, made) -> None:
  """Builds a pipeline and waits for its end; what the runner tells goes to a file, which stays where it fails.

  Raises what a worker raised, as it was, where that is an expected error; else EngineError, which names the file.
  """
  import apache_beam as beam
  with failures.log_file('beam') as log, failures.told_to_file(log, _LOGGERS):
    try:
      with beam.Pipeline(options=made) as pipeline:
        build(pipeline)
    except Exception as error:  # each runner has its own kinds, with the words of a worker in them
      logging.getLogger('apache_beam').error('the pipeline failed', exc_info=error)
      raise failures.with_log(failures.explained(f'{type(error).__name__}: {error}', 'beam', _BRING), log) from error


def ask(question: probing.Question, made) -> None:
  """Puts a question to a worker. Raises what it finds."""
  run(functools.partial(_ask, question=question), made)
  probing.check_answered(question)


def _ask(pipeline, question: probing.Question) -> None:
  import apache_beam as beam
  _ = pipeline | 'ask' >> beam.Create([question]) | 'to a worker' >> beam.Reshuffle() | 'answer' >> beam.Map(
      probing.answer)
