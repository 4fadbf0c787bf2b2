"""What stands after -- reaches the engine as it is, or is refused by one sentence, before anything is done."""

import dataclasses
import importlib.util

import pytest

from bert_jax.errors import ConfigError
from input_pipeline import records
from input_pipeline.engines import names
from input_pipeline.prepare import corpus, settings
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


@pytest.mark.parametrize('engine, module', [('beam', 'apache_beam'), ('ray', 'ray')])
def test_a_missing_extra_is_named(engine, module):
  if importlib.util.find_spec(module):
    pytest.skip(f'{module} is installed: make test')
  with pytest.raises(records.DataError, match=rf"--engine {engine} needs .*pip install 'bert_jax\[{engine}\]'"):
    cli.run(['prepare', *GIVEN, '--engine', engine])


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

  from input_pipeline.engines import beam_jobs
  arguments = ['--runner', 'DirectRunner', '--direct_num_workers', '2', '--experiments=a', '--experiments=b']
  made = beam_jobs.options(tuple(arguments))
  assert made._flags == arguments
  assert made.view_as(pipeline_options.DirectOptions).direct_num_workers == 2
  assert made.view_as(pipeline_options.DebugOptions).experiments == ['a', 'b']
  own = beam_jobs.options(('--runner=PortableRunner', '--job_endpoint=h:1', '--flag_of_the_job_server', '7'))
  assert own.get_all_options(retain_unknown_options=True)['flag_of_the_job_server'] in (7, '7')


@pytest.mark.ray
@pytest.mark.parametrize('arguments, message', [
    (['address=auto'], 'address=auto is no flag'),
    (['--address=auto', 'more'], 'more is no flag'),
    (['--adress=auto'], r'has no flag --adress; did you mean --address\? wanted some of --address, --namespace'),
    (['--log_to_driver=1'], r'no flag --log_to_driver; .*wanted some of --address, --namespace, --runtime_env'),
    (['--num_cpus=many'], '--num_cpus many: wanted a number'),
    (['--num_cpus=0'], '--num_cpus 0: wanted a number from 1'),
    (['--address'], 'argument --address: expected one argument'),
    (['--address='], '--address : wanted a value'),
    (['--address=auto', '--num_cpus=2'], '--num_cpus is of a cluster that is started here'),
    (['--runtime_env=nowhere.yaml'], '--runtime_env nowhere.yaml: No such file or directory'),
    (['--runtime_env={"pip": ['], '--runtime_env {"pip": .*: wanted JSON'),
    (['--runtime_env={}', '--runtime_env=[1]'], '--runtime_env .1.: No such file')])
def test_what_ray_would_ignore_or_cannot_find_is_refused(arguments, message):
  with pytest.raises(records.DataError, match=message) as error:
    cli.run(['prepare', *GIVEN, '--engine', 'ray', '--', *arguments])
  assert '\n' not in str(error.value) and error.value.exit_code == 2


@pytest.mark.ray
def test_flags_reach_ray_by_their_names(tmp_path):
  import inspect

  import ray

  from input_pipeline.engines import ray_jobs
  (tmp_path / 'env.yaml').write_text('working_dir: /house\nenv_vars:\n  A: "1"\n')
  made = ray_jobs.options(('--address', 'ray://head:10001', f'--runtime_env={tmp_path}/env.yaml', '--namespace=mine'))
  assert made == {'address': 'ray://head:10001', 'namespace': 'mine',
                  'runtime_env': {'working_dir': '/house', 'env_vars': {'A': '1'}}}
  assert ray_jobs.options(('--num_cpus=3', '--runtime_env={"pip": ["a"]}')) == {
      'num_cpus': 3, 'runtime_env': {'pip': ['a']}}
  known = inspect.signature(inspect.unwrap(ray.init)).parameters
  assert [name for name in ray_jobs.FLAGS if not name.startswith('_') and name not in known] == []


def test_each_engine_has_its_line_in_both_tables():
  assert corpus.ENGINES.keys() == names.ENGINES.keys()
  known = {field.name for field in dataclasses.fields(settings.Prepare)}
  assert known.issuperset(set().union(*names.ENGINES.values()))
