"""CoNLL files and the figures of entities (bert_jax/tasks/conll.py), against conlleval's rules, written here again."""

import itertools

import hypothesis
import numpy as np
import pytest
import seqeval.metrics  # noqa: F401  here, as it takes seconds
from hypothesis import strategies as st

from bert_jax.tasks import conll
from bert_jax.tasks.conll import Columns
from input_pipeline.errors import DataError

# The head of a file in CoNLL-2003's layout, in IOB1: B- only where an entity follows another of its type.
IOB1 = '''-DOCSTART- -X- -X- O

U.N. NNP I-NP I-ORG
official NN I-NP O
Ekeus NNP I-NP I-PER
heads VBZ I-VP O

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER
Mary NNP I-NP B-PER

-DOCSTART- -X- -X- O

# NN I-NP O
'''
KINDS = 'PER', 'creative-work', 'X'
TAGS = ['O'] + [f'{letter}-{kind}' for letter in 'BI' for kind in KINDS]
raw = st.lists(st.sampled_from(TAGS), min_size=1, max_size=12)
a_word = st.text(st.characters(exclude_categories=['Cs', 'Zl', 'Zp'], exclude_characters=' \t\r\n'), min_size=1,
                 max_size=5).filter(str.strip)
a_sentence = st.lists(st.tuples(a_word, st.sampled_from(['O', 'B-X'])), min_size=1, max_size=4)


def written(path, text):
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return path


def entities(tags):  # IOB2 -> {(first, last, kind)}
  found, begin = set(), None
  for i, tag in enumerate([*tags, 'O']):
    if begin is not None and not tag.startswith('I-'):
      found.add((begin, i - 1, tags[begin][2:]))
      begin = None
    if tag.startswith('B-'):
      begin = i
  return found


def in_scheme(tags, scheme):
  """IOB2 in another scheme, entity by entity."""
  out, last = ['O'] * len(tags), {}
  for first, end, kind in sorted(entities(tags)):
    inner = range(first, end + 1)
    if scheme == 'iob1':
      touches = last.get(first - 1) == kind
      for i in inner:
        out[i] = f'{"B" if i == first and touches else "I"}-{kind}'
    else:
      b, i_, e, s = {'bioes': 'BIES', 'bilou': 'BILU', 'bmes': 'BMES'}[scheme]
      for i in inner:
        letter = s if first == end else b if i == first else e if i == end else i_
        out[i] = f'{letter}-{kind}'
    last = {end: kind}
  return out


def conlleval(gold, predicted):
  """(correct, of the file, predicted) by kind, by conlleval.pl's startOfChunk and endOfChunk for tags of B, I and O."""
  split = lambda tag: tuple(tag.split('-', 1)) if '-' in tag else (tag, '')
  starts = lambda a, b: b[0] == 'B' or (a[0], b[0]) == ('O', 'I') or b[0] != 'O' and a[1] != b[1]
  ends = lambda a, b: a[0] in 'BI' and b[0] in 'BO' or a[0] != 'O' and a[1] != b[1]
  counts = {}
  add = lambda kind, place: counts.setdefault(kind, np.zeros(3, int)).__setitem__(place, counts[kind][place] + 1)
  g0 = p0 = ('O', '')
  correct = False
  stream = itertools.chain.from_iterable([*zip(map(split, g), map(split, p)), (('O', ''),) * 2]
                                         for g, p in zip(gold, predicted))
  for g, p in stream:
    if correct and ends(g0, g) and ends(p0, p) and g0[1] == p0[1]:
      add(g0[1], 0)
      correct = False
    elif correct and (ends(g0, g) != ends(p0, p) or g[1] != p[1]):
      correct = False
    if starts(g0, g) and starts(p0, p) and g[1] == p[1]:
      correct = True
    if starts(g0, g):
      add(g[1], 1)
    if starts(p0, p):
      add(p[1], 2)
    g0, p0 = g, p
  return counts


def scores(counts):
  correct, gold, predicted = map(float, counts)
  precision, recall = correct / predicted if predicted else 0, correct / gold if gold else 0
  return precision, recall, 2 * precision * recall / (precision + recall) if correct else 0


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(st.lists(st.tuples(raw, raw), min_size=1, max_size=4))
def test_figures_are_those_of_conlleval_for_any_sequences(pairs):
  gold, predicted = zip(*((a[:min(len(a), len(b))], b[:min(len(a), len(b))]) for a, b in pairs))
  found = conll.figures(*([conll.iob2(tags) for tags in tags_of] for tags_of in (gold, predicted)))
  counts = conlleval(gold, predicted)
  total = sum(counts.values(), np.zeros(3, int))
  assert (found['precision'], found['recall'], found['f1']) == pytest.approx(scores(total))
  gold_only = {kind: of_kind for kind, of_kind in counts.items() if of_kind[1]}
  for kind, of_kind in gold_only.items():
    assert tuple(found[f'{kind}_{name}'] for name in ('precision', 'recall', 'f1')) == pytest.approx(scores(of_kind))
  assert {name.rpartition('_')[0] for name in found} == {*gold_only, ''}


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(st.lists(raw, min_size=1, max_size=4), st.sampled_from(['iob1', 'iob2', 'bioes', 'bilou', 'bmes']),
                  st.booleans())
def test_every_scheme_is_told_and_read_as_iob2(sentences, scheme, named):
  wanted = [conll.iob2(tags) for tags in sentences]
  assert [entities(conll.iob2(tags)) for tags in wanted] == [entities(tags) for tags in wanted]
  shown = wanted if scheme == 'iob2' else [in_scheme(tags, scheme) for tags in wanted]
  read = read_text('\n'.join(''.join(f'w {tag}\n' for tag in tags) for tags in shown),
                   scheme=scheme if named and scheme.startswith('iob') else 'auto')
  assert [sentence.tags for sentence in read] == wanted


def read_text(text, *arguments, **named):
  class File:
    """A file without a disk."""
    read_bytes = lambda self: text if isinstance(text, bytes) else text.encode()
    __str__ = lambda self: 'FILE'
  return conll.read(File(), *arguments, **named)


def test_the_layout_of_conll_2003_is_read_whole(tmp_path):
  sentences = conll.read(written(tmp_path / 'eng.train', IOB1))
  assert [sentence.words for sentence in sentences] == [
      ('U.N.', 'official', 'Ekeus', 'heads'), ('Peter', 'Blackburn', 'Mary'), ('#',)]
  assert [sentence.tags for sentence in sentences] == [
      ('B-ORG', 'O', 'B-PER', 'O'), ('B-PER', 'I-PER', 'B-PER'), ('O',)]
  assert [sentence.document for sentence in sentences] == [0, 0, 1]
  assert [sentence.lines for sentence in sentences] == [(3, 4, 5, 6), (8, 9, 10), (14,)]
  assert read_text(IOB1, Columns(tag=1), '')[0].tags == ('NNP', 'NN', 'NNP', 'VBZ')
  assert read_text(IOB1, Columns(tag=2))[1].tags == ('B-NP', 'I-NP', 'I-NP')


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(
    st.lists(a_sentence, min_size=1, max_size=4),
    st.sampled_from([' ', '\t', '  ', ' \t']), st.sampled_from(['\n', '\r\n']), st.sampled_from(['', ' ', '\t', ' \t']),
    st.booleans(), st.integers(0, 2), st.booleans())
def test_no_word_is_lost_whatever_lies_between(sentences, gap, end, blank, marked, between, last):
  """Separators, line ends, blank lines with spaces, a mark of UTF-8, more columns, no end of the last line."""
  lines = []
  for sentence in sentences:
    hypothesis.assume(not any(word.startswith(conll.DOCUMENT) for word, _ in sentence))
    lines += [gap.join([word, *['x'] * between, tag]) for word, tag in sentence] + [blank]
  text = end.join(lines[:-1]) + end * last
  hypothesis.assume(not text.startswith('\ufeff'))
  read = read_text(b'\xef\xbb\xbf' * marked + text.encode())
  assert [tuple(zip(sentence.words, sentence.tags)) for sentence in read] == list(map(tuple, sentences))


def test_words_of_a_file_with_tabs_may_hold_spaces_and_lines_may_be_comments(tmp_path):
  text = '# id 1\nNew York\tB-LOC\n#tag\tO\n# id 2\nof\tO\n\n'
  read = read_text(text, Columns(comment='# '))
  assert [(sentence.words, sentence.lines) for sentence in read] == [(('New York', '#tag', 'of'), (2, 3, 5))]
  assert read_text('a\tb\tB-X\n', Columns(word=1))[0].words == ('b',)
  assert read_text('a\n\nc\n')[1] == conll.Sentence(('c',), (), 0, (3,), 'FILE')
  conll.write(tmp_path / 'predicted.conll', read, [['B-LOC', 'O', 'O']])
  assert (tmp_path / 'predicted.conll').read_text() == 'New_York B-LOC B-LOC\n#tag O O\nof O O\n\n'


@pytest.mark.parametrize('text, settings, message', [
    ('', {}, 'FILE holds no sentence'),
    (' \n-DOCSTART- O\n\n', {}, 'FILE holds no sentence'),
    ('a O\nb\n', {}, r'FILE, line 2 has 1 column, b: wanted the word in column 0 and its tag in column -1'),
    ('a\tO\nb \t\n', {}, r'FILE, line 2 has 1 column, b: wanted'),
    ('a\tO\n\tO\n', {}, r'FILE, line 2 has 2 columns,  \| O: wanted'),
    ('a\nb O\n', {}, 'FILE, line 2 has 2 columns, b | O: wanted only a word'),
    ('a O\n', {'columns': Columns(tag=3)}, 'FILE, line 1 has 2 columns, a | O: wanted the word in column 0 and its tag '
                                           'in column 3'),
    ('a O\n', {'columns': Columns(word=1)}, 'FILE, line 1 has 2 columns'),
    (b'a O\n\xff O\n', {}, 'FILE, line 2 is not UTF-8'),
    ('{"text": "good", "label": "1"}\n', {}, 'FILE, line 1: the tag is "1"}: wanted O, or B- or I- and a type'),
    ('a O\nb NNP\n', {}, 'FILE, line 2: the tag is NNP: wanted'),
    ('a B-\n', {}, 'FILE, line 1: the tag is B-: wanted'),
    ('a O\n\nb I-X\n', {'scheme': 'iob2'}, 'FILE, line 3: I-X follows nothing, and in IOB2 an entity begins with B-'),
    ('a B-Y\nb I-X\n', {'scheme': 'iob2'}, 'FILE, line 2: I-X follows B-Y'),
    ('a O\nb I-X\nc O\nd B-X\n', {}, 'line 2: I-X follows O, which is IOB1, and line 4: B-X follows O, which is IOB2'),
    ('a S-X\n', {'scheme': 'iob1'}, 'line 1: S-X follows nothing, and IOB1 has only B- and I-'),
    ('a B-X\nb E-X\n\nc B-X\n', {}, 'line 4: the sentence ends with B-X, and in BIOES'),
    ('a B-X\nb E-Y\n', {}, 'line 2: E-Y follows B-X, and in BIOES'),
])
def test_what_cannot_be_read_is_named_by_file_and_line(text, settings, message):
  with pytest.raises(DataError, match=message):
    read_text(text, **settings)


def test_what_is_no_file_is_named(tmp_path):
  with pytest.raises(DataError, match='none.conll: No such file'):
    conll.read(tmp_path / 'none.conll')
