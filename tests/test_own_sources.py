"""A source that is no file, and a format of one's own, each added by one line, go all the way from text to shards."""

import collections
import dataclasses

import corpora
import pytest

from input_pipeline import records
from input_pipeline.prepare import corpus, settings
from input_pipeline.text import formats, sources
from input_pipeline.vocabulary import training


@dataclasses.dataclass(frozen=True)
class Numbered:
  """`numbered:60` is 60 documents, made from their numbers."""
  name: str

  def stamp(self) -> sources.Stamp:
    return sources.Stamp(self.name)

  def chunks(self, chunk_bytes: int):
    count = int(self.name.partition(':')[2])
    yield from (range(start, min(start + 7, count)) for start in range(0, count, 7))

  def documents(self, content: range) -> sources.Parsed:
    return sources.Parsed(tuple(formats.Document(str(i), '', corpora.text_of(i)) for i in content),
                          collections.Counter(pages=len(content)))


def split_by_bars(stream, name, options):
  for offset, document in enumerate(stream.read().split(b'|')):
    yield offset, document, ()


def parse_backwards(text, context, place, counts, options):
  return formats.Document(text.partition('\n')[0], '', text.partition('\n')[2][::-1]) if text.strip() else 'empty'


@pytest.fixture
def own(monkeypatch):
  """Two lines: one in each table."""
  monkeypatch.setitem(sources.SOURCES, 'numbered', lambda name, format, options: [Numbered(name)])
  monkeypatch.setitem(formats.FORMATS, 'bars',
                      formats.Format(split_by_bars, parse_backwards, lambda head, name: head.startswith(b'|')))


def shards(prepare):
  manifest = corpus.prepare(prepare, progress=False)
  return {name: [shard.sha256 for shard in split.shards] for name, split in manifest.splits.items()}, manifest.counts


def test_a_source_goes_through_vocabulary_and_prepare(own, tmp_path):
  vocabulary = training.train_from(training.VocabularySettings('numbered:60', str(tmp_path / 'vocab.txt'), size=60))
  (tmp_path / 'same.txt').write_text('\n\n'.join(map(corpora.text_of, range(60))))
  (tmp_path / 'trained.txt').write_bytes((tmp_path / 'vocab.txt').read_bytes())
  training.train_from(training.VocabularySettings(
      str(tmp_path / 'same.txt'), str(tmp_path / 'vocab.txt'), size=60, overwrite=True))
  assert (tmp_path / 'trained.txt').read_bytes() == (tmp_path / 'vocab.txt').read_bytes()
  assert len(vocabulary.tokens) == 60
  made = [shards(settings.Prepare('numbered:60', str(tmp_path / 'vocab.txt'), str(tmp_path / f'data-{workers}'),
                                  sequence_length=32, workers=workers)) for workers in (1, 2)]
  assert made[0] == made[1] and made[0][1]['documents'] == made[0][1]['pages'] == 60


def test_in_a_mix_it_has_a_weight_and_is_read_once(own, tmp_path):
  (tmp_path / 'vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')
  (tmp_path / 'a.txt').write_text('\n\n'.join(map(corpora.text_of, range(100, 120))))
  prepare = settings.Prepare(f'numbered:60=2,{tmp_path}/a.txt,numbered:60=2', str(tmp_path / 'vocab.txt'),
                             str(tmp_path / 'data'), sequence_length=32, validation_share=0)
  manifest = corpus.prepare(prepare, progress=False)
  assert manifest.counts['documents'] == 80 and manifest.counts['duplicates'] == 0
  times = collections.Counter(document for document, _ in corpora.all_pieces(prepare, manifest, 'train'))
  once = dataclasses.replace(prepare, input=f'numbered:60,{tmp_path}/a.txt', output=str(tmp_path / 'once'))
  pieces = corpora.all_pieces(once, corpus.prepare(once, progress=False), 'train')
  single = collections.Counter(document for document, _ in pieces)
  number = records.document_number('3')
  assert times[number] > 1.5 * single[number] and times.keys() == single.keys()
  assert corpus.prepare(prepare, progress=False) == manifest  # it holds the same data already
  with pytest.raises(records.DataError, match='numbered:60 with the weights 2 and 1'):
    sources.mixture('numbered:60=2,numbered:60')


@pytest.mark.parametrize('format, workers', [('bars', 1), (None, 2)])
def test_a_format_goes_through_prepare(own, tmp_path, format, workers):
  (tmp_path / 'vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')
  (tmp_path / 'corpus.b').write_text('|'.join(['', *(f'{i}\n{corpora.text_of(i)[::-1]}' for i in range(60))]))
  prepare = settings.Prepare(str(tmp_path / 'corpus.b'), str(tmp_path / 'vocab.txt'), str(tmp_path / 'data'),
                             sequence_length=32, format=format, workers=workers)
  wanted = dataclasses.replace(prepare, input='numbered:60', output=str(tmp_path / 'numbered'), format=None)
  made, again = shards(prepare), shards(wanted)
  assert made[0] == again[0] and made[1]['empty'] == 1


def test_a_format_without_a_file_is_refused(own):
  with pytest.raises(records.DataError, match='--format jsonl has no effect on --input numbered:60'):
    sources.mixture('numbered:60', 'jsonl')
