"""What stands after -- reaches the engine as it is, or is refused by one sentence, before anything is done."""

import dataclasses
import importlib.util

import pytest

from bert_jax.errors import ConfigError
from input_pipeline import records
from input_pipeline.prepare import corpus, engines, settings
from launch import cli
from launch.commands import flags, text

GIVEN = ['--input', 'a.txt', '--vocabulary', 'v.txt', '--output', 'out']


@pytest.mark.parametrize('argv, new', [
    (['--beam-runner', 'DirectRunner', *GIVEN], '--engine beam -- --runner=DirectRunner'),
    ([*GIVEN, '--beam_runner=FlinkRunner', '--beam-arguments=--parallelism=4'],
     '--engine beam -- --runner=FlinkRunner --parallelism=4'),
    (['--beam-arguments', '--project=p', '--region=r', '--beam-runner', 'DataflowRunner'],
     '--engine beam -- --runner=DataflowRunner --project=p --region=r'),
    (['--beam-runner', 'X', '--seed', '1'], '--engine beam -- --runner=X')])
def test_old_flags_are_refused_with_the_new_ones(argv, new):
  with pytest.raises(ConfigError) as error:
    cli.run(['prepare', *argv])
  assert f'write {new} at the end instead' in str(error.value) and '\n' not in str(error.value)


def test_the_first_bare_pair_of_dashes_parts_ours_from_the_engines():
  assert flags.parted(['a', '--', '--b', '--', 'c']) == (['a'], ['--b', '--', 'c'])
  assert flags.parted(['--a']) == (['--a'], [])
  text.refuse_old_flags(['--beam', '--input', '--beam-runners'])  # no others are taken for them


def test_processes_take_no_arguments(tmp_path):
  with pytest.raises(records.DataError, match='there is --runner=DirectRunner after --: .*--engine beam'):
    cli.run(['prepare', *GIVEN, '--', '--runner=DirectRunner'])


@pytest.mark.skipif(bool(importlib.util.find_spec('apache_beam')), reason='Apache Beam is installed: make test')
def test_a_missing_extra_is_named():
  with pytest.raises(records.DataError, match=r"--engine beam needs Apache Beam .*pip install 'bert_jax\[beam\]'"):
    cli.run(['prepare', *GIVEN, '--engine', 'beam'])


@pytest.mark.beam
@pytest.mark.parametrize('arguments, message', [
    (['direct_num_workers=4'], 'direct_num_workers=4 is no flag'),
    (['--runner=DirectRunner', 'more'], 'more is no flag'),
    (['--direct_num_wokers=4'], r'no flag --direct_num_wokers; did you mean --direct_num_workers\?'),
    (['--direct_num_workers=many'], "direct_num_workers: invalid int value: 'many'"),
    (['--runner=Nonsense'], '--runner=Nonsense .* wanted one of .*DirectRunner'),
    (['--runner=no.such.Runner'], '--runner=no.such.Runner'),
    (['--runner=PortableRunner', '--of_the_job_server', '1', 'stray', '--x=1'], 'stray is no flag'),
    (['--runner=DataflowRunner', '--project=p', '--region=r', '--temp_location=gs://b/t'],
     r"pip install 'apache-beam\[gcp\]'"),
    (['--runner=PortableRunner', '--environment_type=PROCESS', '--environment_config={}',
      '--environment_options=process_command=x'], 'after --: .*environment_config')])
def test_what_beam_would_ignore_or_cannot_find_is_refused(arguments, message):
  with pytest.raises(records.DataError, match=message) as error:
    cli.run(['prepare', *GIVEN, '--engine', 'beam', '--', *arguments])
  assert '\n' not in str(error.value) and error.value.exit_code == 2


@pytest.mark.beam
def test_flags_reach_beam_unchanged():
  from apache_beam.options import pipeline_options

  from input_pipeline.prepare import beam_jobs
  arguments = ['--runner', 'DirectRunner', '--direct_num_workers', '2', '--experiments=a', '--experiments=b']
  made = beam_jobs.options(tuple(arguments))
  assert made._flags == arguments
  assert made.view_as(pipeline_options.DirectOptions).direct_num_workers == 2
  assert made.view_as(pipeline_options.DebugOptions).experiments == ['a', 'b']
  own = beam_jobs.options(('--runner=PortableRunner', '--job_endpoint=h:1', '--flag_of_the_job_server', '7'))
  assert own.get_all_options(retain_unknown_options=True)['flag_of_the_job_server'] in (7, '7')


def test_each_engine_has_its_line_in_both_tables():
  assert corpus.ENGINES.keys() == engines.ENGINES.keys()
  known = {field.name for field in dataclasses.fields(settings.Prepare)}
  assert known.issuperset(set().union(*engines.ENGINES.values()))
