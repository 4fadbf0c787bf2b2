"""Wherever a user points what is made: links are followed and stay, it is there whole, or one sentence says why not.

Each command that writes, and each kind of place: nothing is left after a refusal, and nothing else is touched.
"""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading

import parameters
import pytest
import synthetic
from hypothesis import given, settings, strategies as st

from bert_jax import config as cfg, errors, plot, run_directory
from bert_jax.checkpoint import Loaded
from bert_jax.convert import directory, huggingface
from bert_jax.objectives import OBJECTIVES
from bert_jax.report import report
from input_pipeline import places, records, storage
from input_pipeline.prepare import corpus, settings as prepare_settings
from input_pipeline.vocabulary import tokenizer, training
from launch import cli

MODEL = cfg.Model(vocab_size=40, hidden_size=12, layers=1, heads=2, intermediate_size=20, max_positions=16)
WORDS = ('the quick brown fox jumps over a lazy dog while seven wizards boxed quietly beneath vast jade '
         'mountains').split()


@pytest.fixture(scope='module')
def given_files(tmp_path_factory):
  base = tmp_path_factory.mktemp('given')
  (base / 'corpus.txt').write_text('\n\n'.join(' '.join(WORDS[i % 7:i % 7 + 8]) + '.' for i in range(30)))
  (base / 'vocab.txt').write_text('\n'.join([*tokenizer.SPECIAL, *WORDS, '.']) + '\n')
  (base / 'vocabulary').mkdir()
  synthetic.write_vocabulary(base / 'vocabulary', MODEL.vocab_size)
  record = run_directory.Record(
      cfg.Config(model=MODEL, batch=cfg.BatchConfig(size=8, sequence_length=16, predictions=4)), 'nowhere',
      tokenizer.load(base / 'vocab.txt').record)
  run_directory.open_run(base / 'run', record, {records.VOCABULARY: (base / 'vocab.txt').read_bytes()})
  (base / 'run' / run_directory.LOG).write_text(''.join(
      json.dumps({'kind': 'train', 'step': step, 'mlm_loss': 9. / step}) + '\n' for step in (1, 2, 3)))
  return base


def prepare(base, output):
  corpus.prepare(prepare_settings.Prepare(str(base / 'corpus.txt'), str(base / 'vocab.txt'), str(output),
                                          sequence_length=32, workers=1), progress=False)


def vocabulary(base, output):
  training.train_from(training.VocabularySettings(str(base / 'corpus.txt'), str(output), size=60))


def export(base, output):
  storage.probe(output, '--output')
  loaded = Loaded(MODEL, OBJECTIVES['mlm_nsp'], parameters.random(MODEL), lambda: tokenizer.load(base / 'vocabulary'))
  huggingface.export_checkpoint(output, loaded, overwrite=True)


def page(base, output):
  report([base / 'run'], output)


def launch_files(base, output):
  with contextlib.redirect_stdout(io.StringIO()):
    cli.run(['launch-files', str(output)])


# (what makes it, the ending of its name, what of it says that it is whole)
FOLDERS = {'prepare': (prepare, '', records.MANIFEST), 'export': (export, '', directory.MARKER),
           'launch-files': (launch_files, '', 'Dockerfile')}
FILES = {'vocabulary': (vocabulary, '.txt', None), 'report': (page, '.html', None)}
COMMANDS = FOLDERS | FILES


def plain(folder, end):
  return folder / f'out{end}'


def through_a_linked_folder(folder, end):
  (folder / 'real').mkdir()
  (folder / 'link').symlink_to('real')
  return folder / 'link' / 'deep' / f'out{end}'


def relative(folder, end):
  (folder / 'x').mkdir()
  return pathlib.Path('x', '..', f'out{end}')


def link(folder, end):
  (folder / 'real').mkdir()
  (folder / f'out{end}').symlink_to('real' if not end else f'real/file{end}')
  return folder / f'out{end}'


def chain_of_links(folder, end):
  (folder / f'out{end}').symlink_to('second')
  (folder / 'second').symlink_to(folder / 'deep' / f'third{end}')
  return folder / f'out{end}'


def here(folder, end):
  return pathlib.Path('.' if not end else f'./out{end}')


def absolute_here(folder, end):
  return folder / end if end else folder


def below_a_file(folder, end):
  (folder / 'file').write_text('mine')
  return folder / 'file' / f'out{end}'


def circle(folder, end):
  (folder / 'a').symlink_to('b')
  (folder / 'b').symlink_to('a')
  return folder / 'a' / f'out{end}'


def circle_itself(folder, end):
  (folder / f'a{end}').symlink_to(f'a{end}')
  return folder / f'a{end}'


def of_the_kernel(folder, end):
  return pathlib.Path(f'/proc/bert_jax/out{end}')


def of_the_kernel_too(folder, end):
  return pathlib.Path(f'/sys/out{end}')


def device(folder, end):
  (folder / f'out{end}').symlink_to('/dev/null')
  return pathlib.Path('/dev/null') if not end else pathlib.Path(f'/dev/null/out{end}')


def too_long(folder, end):
  return folder / ('x' * 300 + end)


def up_and_down(folder, end):
  return pathlib.Path('..', folder.name, f'out{end}')


def up_from_nowhere(folder, end):
  return pathlib.Path('nowhere', '..', f'out{end}')


def of_somebody_else(folder, end):
  if end:
    (folder / f'out{end}').mkdir()
  else:
    (folder / 'out').mkdir()
    (folder / 'out' / 'letter').write_text('mine')
  return folder / f'out{end}'


FINE = plain, through_a_linked_folder, relative, link, chain_of_links, here, up_and_down
REFUSED = below_a_file, circle, circle_itself, of_the_kernel, of_the_kernel_too, device, too_long, up_from_nowhere


def snapshot(folder):
  return {path.relative_to(folder): os.readlink(path) if path.is_symlink() else path.is_dir() or path.read_bytes()
          for path in folder.rglob('*')}


def run_at(given_files, folder, command, place):
  """(the place, what was there before) after the command has written there."""
  make, end, _ = COMMANDS[command]
  with contextlib.chdir(folder):
    where = place(folder, end)
    before = snapshot(folder)
    make(given_files, where)
  return where, before


@pytest.mark.parametrize('command, place', [
    (command, place) for command in COMMANDS for place in FINE if command != 'report' or place == chain_of_links])
def test_where_it_can_be(given_files, tmp_path, command, place):
  inode = tmp_path.stat().st_ino
  where, before = run_at(given_files, tmp_path, command, place)
  found = pathlib.Path(os.path.realpath(tmp_path / where))
  whole = COMMANDS[command][2]
  assert found.is_file() if whole is None else (found / whole).is_file()
  after = snapshot(tmp_path)
  assert {path: after[path] for path in before} == before  # links are links, and lead where they led
  assert tmp_path.stat().st_ino == inode  # who stands there still does
  assert not [path for path in after if path.name.startswith('.')]
  if command == 'prepare':
    assert records.read_manifest(found).splits['train'].pieces
  if command in ('prepare', 'export'):  # the same again, over it
    run = COMMANDS[command][0]
    with contextlib.chdir(tmp_path):
      run(given_files, where)
    assert snapshot(tmp_path).keys() == after.keys()


@pytest.mark.parametrize('place', REFUSED, ids=lambda place: place.__name__)
@pytest.mark.parametrize('command', COMMANDS)
def test_where_it_cannot_be(given_files, tmp_path, command, place):
  make, end, _ = COMMANDS[command]
  with contextlib.chdir(tmp_path):
    where = place(tmp_path, end)
    before = snapshot(tmp_path)
    with pytest.raises(Exception) as caught:
      make(given_files, where)
  said = str(caught.value)
  assert cli.exit_code(caught.value) in (errors.ConfigError.exit_code, cfg.DataError.exit_code)
  assert '\n' not in said and str(where)[:50] in said
  assert snapshot(tmp_path) == before


@pytest.mark.parametrize('command', COMMANDS)
def test_what_is_somebody_elses_stays(given_files, tmp_path, command):
  where = of_somebody_else(tmp_path, COMMANDS[command][1])
  before = snapshot(tmp_path)
  if command == 'launch-files':  # whose files stand beside others
    COMMANDS[command][0](given_files, where)
  else:
    with pytest.raises(Exception) as caught:
      COMMANDS[command][0](given_files, where)
    assert cli.exit_code(caught.value) and '\n' not in str(caught.value)
  after = snapshot(tmp_path)
  assert {path: after[path] for path in before} == before and (command == 'launch-files' or after == before)


@given(st.lists(st.sampled_from(['one', 'two', 'folder/three', 'last']), unique=True),
       st.lists(st.sampled_from(['one', 'two', 'folder/three']), unique=True), st.booleans(), st.integers(-1, 6))
@settings(deadline=None, max_examples=30)
def test_a_folder_is_whole_or_as_it_was(tmp_path_factory, old, new, stays, fails_at):
  """Also where the files move in one by one, and where moving one fails."""
  base = tmp_path_factory.mktemp('base')
  target, made = base / 'target', base / 'target' / '.made' if stays else base / 'made'
  new = [*new, 'last']
  for folder, names, text in ((target, old, 'old'), (made, new, 'new')):
    for name in names:
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
      (folder / name).write_text(text)
  target.mkdir(exist_ok=True)
  moves = 0

  def move(source, place):
    nonlocal moves
    moves += 1
    if moves - 1 == fails_at:
      raise OSError(28, 'No space left on device')
    real(source, place)

  found = lambda: {str(path.relative_to(target)): path.read_text() for path in target.rglob('*')
                   if path.is_file() and '.made' not in str(path)}
  before = found()
  real = places._move
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(places, '_move', move)
    patch.setattr(places, '_stays', lambda path: stays)
    try:
      places.put_folder(made, target, 'last', old)
    except OSError:
      assert stays and found() == before
    else:
      assert found() == dict.fromkeys(new, 'new')


def test_a_pipe_gets_what_a_file_would(given_files, tmp_path):
  pipe, read = tmp_path / 'out.html', []
  os.mkfifo(pipe)
  reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
  reader.start()
  page(given_files, pipe)
  reader.join()
  assert read[0].startswith('<!') and pipe.is_fifo() and os.listdir(tmp_path) == ['out.html']


@pytest.mark.parametrize('place', [link, chain_of_links, here], ids=lambda place: place.__name__)
def test_a_run(given_files, tmp_path, place):
  """A run directory that is a link, or is to be made at the end of one; its picture goes there, too."""
  with contextlib.chdir(tmp_path):
    where = place(tmp_path, '')
    before = snapshot(tmp_path)
    record = run_directory.read(given_files / 'run')
    run_directory.open_run(where, dataclasses.replace(record), {})
    (where / run_directory.LOG).write_bytes((given_files / 'run' / run_directory.LOG).read_bytes())
    plot.plot(where)
    assert (where / run_directory.PICTURE).is_file()
  after = snapshot(tmp_path)
  assert {path: after[path] for path in before} == before


def test_a_run_in_a_folder_whose_name_is_no_text(tmp_path):
  """Known before the first step: what writes the arrays takes no such name."""
  place = tmp_path / os.fsdecode(b'b\xff')
  storage.probe(place, '--output')
  with pytest.raises(records.DataError, match='is not UTF-8') as caught:
    storage.probe(place / 'run', '--run-dir', checkpoints=True)
  assert cli.one_line(caught.value).isprintable() and not list(tmp_path.iterdir())
  with pytest.raises(records.DataError, match='--output .* is not UTF-8'):
    storage.probe_export(place)


@given(st.text())
def test_a_sentence_is_one_line_of_letters(text):
  """Whatever stands in a name: no end of a line, nothing that moves a cursor."""
  said = cli.one_line(text)
  assert said.isprintable() and (said == text) == text.isprintable()


def test_what_a_killed_process_left_is_swept_and_what_it_put_aside_comes_back(tmp_path):
  with subprocess.Popen([sys.executable, '-c', '']) as ended:
    pass
  left = lambda name, end, pid=ended.pid: tmp_path / f'.{name}.{socket.gethostname()}-{pid}.{end}'
  left('out', 'old').mkdir()
  (left('out', 'old') / 'marker').write_text('the old one')
  left('out', 'tmp').mkdir()
  left('file', 'tmp').write_text('half')
  others = [left('out', 'tmp', os.getpid()), left('outer', 'tmp'), tmp_path / f'.out.elsewhere-{ended.pid}.tmp',
            tmp_path / f'.out.{socket.gethostname()}-{ended.pid}.tmpx']
  for path in others:
    path.mkdir()
  places.sweep(tmp_path / 'out')
  assert (tmp_path / 'out' / 'marker').read_text() == 'the old one'
  places.write(tmp_path / 'file', b'whole')
  assert sorted(tmp_path.iterdir()) == sorted([tmp_path / 'out', tmp_path / 'file', *others])
