"""Flags: help that waits for nothing, no flag that is parsed and ignored, advice that names only what exists."""

import ast
import os
import pathlib
import re
import subprocess
import sys
import typing

import pytest

from bert_jax import config as cfg, recipes
from bert_jax.tasks.table import TASKS
from input_pipeline.errors import DataError
from launch import cli
from launch.commands import (
    checkpoints,
    flags,
    following,
    launch_files,
    measuring,
    names,
    planning,
    pretraining,
    proving,
    supervising,
    table,
    text,
    training,
    using,
)

ROOT = pathlib.Path(cli.__file__).parents[1]
PACKAGES = ('bert_jax', 'input_pipeline', 'launch')
PROGRAM = '''
import sys
before = set(sys.modules)
sys.argv = {argv!r}
from launch import cli
try:
  cli.main()
finally:
  print('modules', *set(sys.modules) - before)
'''


def loaded_by(*argv):
  """The modules that a command line brings into a fresh process."""
  program = PROGRAM.format(argv=['bert-jax', *argv])
  done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=300, cwd=ROOT,
                        env=dict(os.environ))
  return done.stdout.splitlines()[-1].split()[1:]


def test_help_waits_for_nothing():
  """Python itself and a handful of our own files: no NumPy, no tyro, so none of what takes seconds."""
  loaded = loaded_by('--help')
  ours = {name for name in loaded if name.split('.')[0] in PACKAGES}
  assert {name.split('.')[0] for name in loaded} - set(PACKAGES) <= set(sys.stdlib_module_names)
  assert 'launch.commands.table' in ours and len(ours) <= 10 and len(loaded) < 40


@pytest.mark.parametrize('command', ['vocabulary', 'prepare', 'inspect'])
def test_commands_of_text_bring_no_jax(command):
  top = {name.split('.')[0] for name in loaded_by(command, '--help')}
  assert 'tyro' in top and not {'jax', 'flax', 'tensorflow', 'torch'} & top


def test_every_command_says_what_it_does_and_what_each_flag_is_for():
  for name, command in table.COMMANDS.items():
    assert command.__doc__.endswith('.'), name
  for kind in SETTINGS.values():
    source = ast.parse(pathlib.Path(sys.modules[kind.__module__].__file__).read_text())
    body = next(node for node in source.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__).body
    for field, after in zip(body, [*body[1:], None]):
      if isinstance(field, ast.AnnAssign):
        described = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        assert described, f'{kind.__name__}.{field.target.id} has no docstring'

# ---------------------------------------------------------------- flags that would change nothing


STEP = ['benchmark', 'step', 'base']
PRETRAIN = ['--data', 'd', '--run-dir', 'r']
PREPARE = ['prepare', '--input', 'x', '--vocabulary', 'v', '--output', 'o']
IDLE = [
    (['plan', 'base', '--slices', '2'], '--slices 2 changes nothing without --topology'),
    (['plan', 'base', '--tries', '5'], '--tries 5 changes nothing without --search'),
    (['plan', 'base', '--all-lengths', '--sequence-length', '9'], '--sequence-length 9 changes nothing with --all'),
    (['plan', 'base', '--all-lengths', '--predictions', '9'], '--predictions 9 changes nothing with --all-lengths'),
    (['plan', 'base', '--batch-per-chip', '8', '--batch.size', '8'], '--batch.size 8 changes nothing with'),
    (['plan', 'base', '--batch-per-chip', '8', '--long.size', '8'], '--long.size 8 changes nothing with'),
    (['plan', 'base', '--price', '2'], '--price 2.0 changes nothing on cpu'),
    (['plan', 'base', '--run.log-every', '1'], '--run.log-every 1 changes nothing in a plan'),
    (['plan', 'base', '--run.max-minutes', '1'], '--run.max-minutes 1.0 changes nothing in a plan'),
    (['plan', 'base', '--batch.seed', '1'], '--batch.seed 1 changes nothing in a plan'),
    ([*STEP, '--compiled-peer'], '--compiled-peer True changes nothing without --peer'),
    ([*STEP, '--long.share', '0.5'], '--long.share 0.5 changes nothing in a benchmark'),
    ([*STEP, '--run.log-every', '5'], '--run.log-every 5 changes nothing in a benchmark'),
    ([*STEP, '--batch.masking.unit', 'word'], '--batch.masking.unit word changes nothing without'),
    ([*STEP, '--batch.seed', '1'], '--batch.seed 1 changes nothing without --data'),
    (['inspect', 'd', '--examples', '0', '--pack'], '--pack True changes nothing with --examples 0'),
    (['inspect', 'd', '--examples', '0', '--masking.unit', 'word'], '--masking.unit word changes nothing'),
    (['pretrain', 'base', *PRETRAIN, '--long.share', '0', '--long.size', '8'], '--long.size 8 changes nothing'),
    (['pretrain', 'sample', *PRETRAIN, '--long.predictions', '9'], '--long.predictions 9 changes nothing'),
    (['pretrain', 'base', *PRETRAIN, '--run.evaluation-rows', '8'], '--run.evaluation-rows 8 changes nothing'),
]


@pytest.mark.parametrize('argv, says', IDLE, ids=lambda value: ' '.join(value) if isinstance(value, list) else '')
def test_a_flag_that_would_change_nothing_is_refused(argv, says):
  with pytest.raises(cfg.ConfigError, match='^' + re.escape(says)) as caught:
    cli.run(argv)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('argv, says', [
    (['inspect', 'd', '--examples', '-1'], '--examples is -1'),
    (['inspect', 'd', '--sample-tokens', '0'], '--sample-tokens is 0'),
    ([*STEP, '--rounds', '0'], '--rounds is 0'),
    ([*STEP, '--seconds', '-1'], '--seconds is -1'),
    (['plan', 'base', '--tries', '0', '--search'], '--tries is 0'),
    (['plan', 'base', '--search', '--all-lengths', '--topology', 'v5e:2x2'], '--search is for one length'),
    ([*PREPARE, '--long-sequence-length', '0'], '--long-sequence-length is 0'),
    ([*PREPARE, '--long-sequence-length', '128'], 'more than --sequence-length 128'),
])
def test_numbers_that_cannot_work_are_refused(argv, says):
  with pytest.raises(cfg.ConfigError, match=says):
    cli.run(argv)


def test_what_a_recipe_brings_with_it_is_not_refused():
  """`sample` ends after 15 minutes, and left_to_right has other long rows: nobody gave these flags."""
  for name in ('sample', 'proof', 'base', *recipes.OTHERS, 'base_left_to_right', 'sample_no_nsp'):
    default = planning.Plan(recipes.recipe(name))
    assert flags.parse(planning.Plan, [], 'plan', default, planning.check) == default
  default = pretraining.Pretrain('d', 'r', recipes.recipe('base_left_to_right'))
  args = flags.parse(pretraining.Pretrain, ['--long.share', '0'], 'pretrain', default, pretraining.check)
  assert args.config.long.share == 0 and args.config.long.predictions == 1


@pytest.mark.parametrize('argv', [
    ['--topology', 'v5e:2x2', '--slices', '2', '--price', '1'], ['--topology', 'v5e:2x2', '--search', '--tries', '3'],
    ['--sequence-length', '512', '--predictions', '80'], ['--all-lengths', '--batch.predictions', '21']])
def test_a_flag_that_changes_something_is_taken(argv):
  flags.parse(planning.Plan, argv, 'plan', planning.Plan(recipes.recipe('base')), planning.check)


@pytest.mark.parametrize('command', [['pretrain'], ['plan'], ['benchmark', 'step']])
def test_commands_of_recipes_list_them_with_their_variants(capsys, command):
  assert cli.run([*command, '--help']) == 0 and cli.run(command) == 2
  printed = capsys.readouterr().out
  assert max(map(len, printed.splitlines())) <= flags.WIDTH
  titles = [*recipes.RECIPE_GROUPS, *recipes.VARIANT_GROUPS]
  assert all(printed.count(f'\n\n{title}:\n') == 2 for title in titles)
  shown = {**recipes.NAMED, **recipes.BY_SIZE, **recipes.OTHERS, **{f'_{name}': None for name in recipes.VARIANTS}}
  assert all(printed.count(f'  {name} ') >= 2 for name in shown)
  with pytest.raises(cfg.ConfigError, match="did you mean 'base_no_nsp'"):
    cli.run([*command, 'base_no_nps'])


def test_help_cuts_no_sentence_in_two():
  """What is listed of a recipe or variant is a paragraph of whole sentences."""
  for group in (*recipes.RECIPE_GROUPS.values(), *recipes.VARIANT_GROUPS.values()):
    for name, function in group.items():
      first = ' '.join(function.__doc__.split('\n\n')[0].split())
      assert first.endswith('.') and first.count('(') == first.count(')') and first.count('`') % 2 == 0, name
      shown = ' '.join(flags.listed({name: function}).split())
      assert shown.startswith(name) and shown.endswith(first)


def test_json_is_for_people_too():
  assert flags.as_json({'token': '中文'}) == '{"token": "中文"}'
  for path in (ROOT / 'launch' / 'commands').glob('*.py'):
    assert path.name == 'flags.py' or 'json.dumps' not in path.read_text(), path.name


def test_choices_are_those_of_the_tables():
  from bert_jax import features, score, trackers
  from bert_jax.benchmark import peers, tasks
  from bert_jax.convert import exchange, growing, huggingface
  from input_pipeline import benchmark
  from input_pipeline.batches.config import BatchConfig

  def choices(kind, name):
    hint = typing.get_type_hints(kind)[name]
    literal = next((part for part in typing.get_args(hint) if typing.get_origin(part) is typing.Literal), hint)
    return typing.get_args(literal)

  assert choices(checkpoints.Export, 'format') == tuple(exchange.EXPORTERS)
  assert choices(checkpoints.Export, 'architecture') == tuple(huggingface.ARCHITECTURES)
  assert choices(checkpoints.Export, 'layout') == huggingface.LAYOUTS
  assert choices(measuring.BenchmarkStep, 'peer') == tuple(peers.PEERS)
  assert choices(measuring.BenchmarkTasks, 'suite') == tuple(tasks.SUITES)
  assert choices(measuring.BenchmarkInput, 'peer') == tuple(benchmark.PEERS)
  assert choices(using.Features, 'pooling') == ('none', *(name for name in features.POOLING if name != 'none'))
  assert choices(using.Score, 'unit') == tuple(score.UNITS)
  assert choices(pretraining.Pretrain, 'longer_positions') == tuple(growing.LONGER)
  assert choices(pretraining.Pretrain, 'log_to') == choices(training.FinetuneCommand, 'log_to') == tuple(
      trackers.TRACKERS)
  assert choices(text.Inspect, 'pairs') == choices(BatchConfig, 'pairs')

# ---------------------------------------------------------------- advice


def settings():
  from input_pipeline.vocabulary.training import VocabularySettings
  return {'vocabulary': VocabularySettings, 'prepare': text.PrepareCommand, 'inspect': text.Inspect,
          'pretrain': pretraining.Pretrain, 'finetune': training.FinetuneCommand, 'evaluate': training.Evaluate,
          'predict': training.Predict, 'plot': following.Plot, 'report': following.Report,
          'runs': following.Runs, 'tensorboard': following.Tensorboard,
          'supervise': supervising.Supervise, 'plan': planning.Plan, 'selftest': proving.SelfTest,
          'benchmark step': measuring.BenchmarkStep,
          'benchmark input': measuring.BenchmarkInput, 'benchmark tasks': measuring.BenchmarkTasks,
          'import': checkpoints.Import, 'export': checkpoints.Export,
          'verify': checkpoints.Verify, 'launch-files': launch_files.LaunchFiles,
          'fill-mask': using.FillMask, 'features': using.Features, 'score': using.Score,
          'next-sentence': using.NextSentence}


SETTINGS = settings()
KINDS = {f'benchmark {kind}' for kind in measuring.KINDS}
PLACEHOLDER = '…'
# The command's own, Beam's, Ray's and git's, one that stands in a recipe's place, and those that are refused with what
# took their place.
FOREIGN = {'--version', '--logdir', '--host', '--direct_num_workers', '--direct_running_mode', '--runner', '--project',
           '--region', '--setup_file', '--address', '--runtime_env', '--always', '--dirty', '--abbrev', '--exclude',
           planning.LIST, '--beam-runner', '--beam-arguments'}
# Faults that are known: (file, what it names). To be emptied.
KNOWN: set[tuple[str, str]] = set()


def flags_of(kind):
  return {'--help', *names.flags_of(kind)}


FLAGS = {planning.LIST}.union(*map(flags_of, SETTINGS.values()), *(flags_of(task.settings) for task in TASKS.values()))


@pytest.mark.parametrize('command', SETTINGS)
def test_what_the_parser_refuses_is_told_in_a_sentence(command, capsys):
  """A flag without its value, one that is none, a word too many, a choice that is none: by name, and nothing drawn."""
  kind = SETTINGS[command]
  takes = sorted(name for name in flags_of(kind) if '--no-' not in name and name != '--help')
  lines = [([*takes[:1], '--no-such-flag', 'word'], '--no-such-flag')]
  for name in takes[::max(1, len(takes) // 4)]:
    lines += [([name], name), ([f'{name}=\x1b[31mno'], name)]
  said = set()
  for words, named in lines:
    try:
      flags.parse(kind, words, command)
    except (cfg.ConfigError, DataError) as error:
      sentence = cli.one_line(error)
      assert not set('─│╭') & set(sentence) and len(sentence) < 1500, sentence
      assert named.strip('-').replace('-', '_') in sentence.replace('-', '_') or 'issing' in sentence, sentence
      said.add(sentence)
  assert said
  assert not ''.join(capsys.readouterr())


def test_what_is_wrong_stands_there_with_what_was_wanted():
  for words, says in (
      (['--batch.masking.schedule', '0'], r"--batch.masking.schedule: .*\['0'\]; wanted --batch.masking.schedule "
       r'\[INT FLOAT \[INT FLOAT ...\]\]; `bert-jax pretrain tiny --help`'),
      (['--model.dtype', 'float31'], "'float31' for argument '--model.dtype'. Expected one of .*bfloat16"),
      (['--model.dtyp', 'float32'], 'options: --model.dtyp, float32; did you mean --model.dtype {auto,'),
      (['--run.steps'], "value for argument '--run.steps'"),
      (['--distributed.no-auto=maybe'], 'options: maybe, after --distributed.no-auto, which takes no more')):
    with pytest.raises(cfg.ConfigError, match=says):
      cli.run(['pretrain', 'tiny', *PRETRAIN, *words])
  with pytest.raises(cfg.ConfigError, match=r'missing from .*: --run-dir STR \(Where checkpoints and'):
    cli.run(['pretrain', 'tiny', *PRETRAIN[:2]])


def strings(path):
  """The string literals of a file, docstrings among them, with PLACEHOLDER where something is filled in."""
  tree = ast.parse(path.read_text())
  inside = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.JoinedStr):
      inside |= {id(part) for part in ast.walk(node) if part is not node}
      yield ''.join(part.value if isinstance(part, ast.Constant) else PLACEHOLDER for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
      yield node.value


def missing(words):
  """Flags and commands that a text names and that do not exist."""
  for name in re.findall(r'(?<![\w\-/.])--[a-z][\w.\-]*' + PLACEHOLDER + '?', words):
    if name.endswith((PLACEHOLDER, '.')):
      known = any(flag.startswith(name.rstrip(PLACEHOLDER + '.')) for flag in FLAGS)
    else:
      known = name.rstrip('.-') in FLAGS | FOREIGN
    if not known:
      yield name
  for name in re.findall(r'bert-jax ([a-z][a-z\-]*)', words):
    if name not in table.COMMANDS:
      yield f'bert-jax {name}'


FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob('*.py'))


def test_flags_are_those_that_tyro_makes():
  assert {'--batch.masking.unit', '--model.no-causal', '--run-dir', '--mesh', '--long-sequence-length', '--kind',
          '--top-k', '--json', '--engine', '--distributed.no-auto'} <= FLAGS
  assert set(SETTINGS) == set(table.COMMANDS) - {'benchmark'} | KINDS


def test_what_does_not_exist_is_found():
  assert list(missing('pass --new-heads or --mesh.fsdp')) == ['--new-heads']
  assert list(missing(f'set --batch.{PLACEHOLDER} with `bert-jax pretrain`')) == []
  assert list(missing('`bert-jax convert` reads --optimizer.colour.')) == ['--optimizer.colour.', 'bert-jax convert']


def test_advice_names_only_flags_and_commands_that_exist():
  found = {(str(path.relative_to(ROOT)), name) for path in FILES for words in strings(path) for name in missing(words)}
  assert found == KNOWN, f'new: {sorted(found - KNOWN)}; mended: {sorted(KNOWN - found)}'


def test_the_readme_names_only_flags_and_commands_that_exist():
  readme = (ROOT / 'README.md').read_text()
  assert sorted(set(missing(readme))) == []

# ---------------------------------------------------------------- words that name nothing


def test_versions(capsys):
  assert cli.run(['--version']) == 0
  found = dict(line.split(' ', 1) for line in capsys.readouterr().out.splitlines())
  assert {'bert_jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'python'} <= found.keys()
  assert re.fullmatch(r'\d+\.\d+.*', found['bert_jax']) and ('commit' in found) == (ROOT / '.git').exists()


@pytest.mark.parametrize('command', SETTINGS)
def test_a_flag_that_is_nearly_one_gets_a_suggestion(command):
  """Two letters of each of its longer flags change places; whatever else is missing or wrong."""
  kind = SETTINGS[command]
  known = names.flags_of(kind)
  for name in sorted(name for name in known if '.' not in name and len(name) > 6 and '--no-' not in name)[:12]:
    slipped = name[:4] + name[5] + name[4] + name[6:]
    if slipped not in known:
      with pytest.raises(cfg.ConfigError, match=f'did you mean {name}'):
        flags.parse(kind, [slipped, 'x'], command)


@pytest.mark.parametrize('argv, says', [
    (['prepare', '--inptu', 'x'], 'did you mean --input?'), (['pretrain', 'tiny', '--rnu-dir', 'r'], 'mean --run-dir?'),
    (['finetune', 'cloa'], "did you mean 'cola'?"), (['benchmark', 'stpe'], "did you mean 'step'?"),
    (['--input', 'x', 'prepare'], 'write it first, `bert-jax prepare --input …`'), (['--input', 'x'], 'no command')])
def test_what_may_have_been_meant(argv, says):
  with pytest.raises(cfg.ConfigError, match=re.escape(says)):
    cli.run(argv)


@pytest.mark.parametrize('argv, wanted', [
    (['--run.steps', '3', '--batch.sequence_length=8'], {'run.steps', 'batch.sequence_length'}),
    (['--model.no-causal'], {'model.causal'}), (['--mesh', 'auto'], {f'mesh.{name}' for name in (
        'data', 'fsdp', 'tensor')}), (['--data', '--', 'x'], {'data'}), (['x', '--no-such'], set())])
def test_which_settings_a_command_line_gives(argv, wanted):
  found = names.given(argv, pretraining.Pretrain).keys()
  assert wanted <= found and all(name.startswith('mesh') or name in wanted for name in found)

# ---------------------------------------------------------------- advice of one command

READERS = 'finetune', 'evaluate', 'predict'  # of tables
# What is raised only in these commands: a file, or the files of a room. A sentence there may name another command's
# flag where it names that command too.
ONLY = {
    'input_pipeline/prepare': ('prepare',), 'input_pipeline/vocabulary/training.py': ('vocabulary',),
    'input_pipeline/vocabulary/extending.py': ('vocabulary',), 'input_pipeline/vocabulary/cases.py': ('vocabulary',),
    'input_pipeline/inspection': ('inspect',), 'input_pipeline/text': ('vocabulary', 'prepare', *READERS),
    'bert_jax/train.py': ('pretrain',), 'bert_jax/fitting.py': ('pretrain',), 'bert_jax/phases.py': ('pretrain',),
    'bert_jax/extending.py': ('pretrain',), 'bert_jax/dry_run.py': ('pretrain',), 'bert_jax/rewind.py': ('pretrain',),
    'bert_jax/recipes.py': ('pretrain',), 'bert_jax/health.py': ('pretrain', 'finetune'),
    'bert_jax/metrics.py': ('pretrain', 'finetune'), 'bert_jax/training.py': ('pretrain', 'finetune'),
    'bert_jax/loop.py': ('pretrain', 'finetune'), 'bert_jax/trackers.py': ('pretrain', 'finetune'),
    'bert_jax/distributed.py': ('pretrain', 'finetune'), 'bert_jax/finetune.py': READERS,
    'bert_jax/sweep.py': ('finetune',), 'bert_jax/beginning.py': ('finetune',),
    'bert_jax/tasks': READERS, 'bert_jax/predict.py': ('predict',),
    'bert_jax/benchmark': tuple(sorted(KINDS)), 'bert_jax/plot.py': ('plot',), 'bert_jax/report': ('report',),
    'bert_jax/runs.py': ('runs',), 'bert_jax/verify.py': ('verify',), 'launch/plan': ('plan',),
    'launch/supervise.py': ('supervise', 'pretrain', 'finetune'),  # which it starts
    'launch/commands/pretraining.py': ('pretrain',),
    'launch/commands/planning.py': ('plan',), 'launch/commands/following.py': ('plot', 'report', 'runs', 'tensorboard'),
    'launch/commands/launch_files.py': ('launch-files',),
    'launch/commands/text.py': ('vocabulary', 'prepare', 'inspect', 'pretrain'),  # what comes next
    'launch/commands/training.py': READERS, 'launch/commands/proving.py': ('selftest',),
    'launch/commands/checkpoints.py': ('import', 'export', 'verify'),
    'launch/commands/using.py': ('fill-mask', 'features', 'score', 'next-sentence'),
    'launch/commands/measuring.py': tuple(sorted(KINDS))}
# A task's own settings are flags of these.
OF_TASKS = set().union(*(flags_of(task.settings) for task in TASKS.values()))


def flags_in(command):
  more = {'finetune': OF_TASKS, 'plan': {planning.LIST}}.get(command, set())
  return flags_of(SETTINGS[command]) | more


def of_others(path, commands):
  """(line of a file, flag) of each string that names a flag which none of these commands has."""
  known = set().union(*map(flags_in, commands))
  for words in strings(path):
    words = re.sub(r'`(?!bert-jax)\w+ --[^`]*`', '', words)  # of another program
    there = set().union(known, *(flags_in(command) for command in SETTINGS if re.search(
        rf'(?<![\w-]){command}(?![\w-])', words)))
    for name in re.findall(r'(?<![\w\-/.])--[a-z][\w.\-]*' + PLACEHOLDER + '?', words):
      begins = name.rstrip(PLACEHOLDER + '.-')
      whole = not name.endswith((PLACEHOLDER, '.'))
      if name.rstrip('.-') not in FOREIGN and not (begins in there if whole else any(
          flag.startswith(begins) for flag in there)):
        yield words[:100], name


@pytest.mark.parametrize('place', [f'bert_jax/{name}.py' for name in (
    'tasks/splits', 'predict', 'training', 'loop', 'trackers', 'distributed')])
def test_what_several_commands_say_names_flags_that_each_has(place):
  """Or it names the command that has it."""
  commands = next(commands for room, commands in ONLY.items() if place.startswith(room))
  assert [(command, *one) for command in commands for one in of_others(ROOT / place, [command])] == []


@pytest.mark.parametrize('place', ONLY)
def test_what_a_command_says_names_flags_that_it_has(place):
  files = [path for path in FILES if path.is_relative_to(ROOT / place)]
  assert files, place
  assert [(str(path.relative_to(ROOT)), *one) for path in files for one in of_others(path, ONLY[place])] == []


def test_a_flag_of_another_command_is_found(tmp_path):
  (tmp_path / 'a.py').write_text("fail('lower --run.steps, or --input')\nprint('`bert-jax prepare --input`')")
  assert [name for _, name in of_others(tmp_path / 'a.py', ['pretrain'])] == ['--input']
