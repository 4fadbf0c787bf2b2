"""Lines that a margin broke are joined as they were; a sentence or a paragraph a line is left as it is."""

import random
import re
import textwrap

import pytest
from hypothesis import given, strategies as st

from input_pipeline.text import sources, wrapping

SENTENCES = [
    'The old mill by the river was built in 1823 by two brothers from the next valley.',
    'It stood empty for many years, and only birds lived under its broken roof.',
    'In the spring of 1901 a painter bought it, put glass into its windows and moved in with her three daughters.',
    'Nobody in the village believed that they would stay for longer than one winter, but they stayed for forty.',
    'Visitors came by train.', '"What do you want here?" asked the eldest.', 'They wanted tea!',
    'The well-known guide of Mr. Brown says: it is worth the long way, above all in autumn.']
PARAGRAPH = st.lists(st.sampled_from(SENTENCES), min_size=3, max_size=9).map(' '.join)
PARAGRAPHS = st.lists(PARAGRAPH, min_size=1, max_size=6)


@given(PARAGRAPHS, st.integers(45, 100), st.sampled_from(['\n', '\n\n']))
def test_wrapped_paragraphs_are_joined(paragraphs, width, between):
  """A blank line always ends a paragraph, and so does a line with room for more."""
  wrapped = between.join(textwrap.fill(one, width, break_on_hyphens=False) for one in paragraphs)
  found = wrapping.unwrapped(wrapped, 'wrapped')
  assert found.split() == wrapped.split()
  if between == '\n\n':
    assert found == '\n'.join(paragraphs)
  assert wrapping.unwrapped(wrapped, 'auto') in (found, wrapped) and wrapping.unwrapped(found, 'auto') == found


@pytest.mark.parametrize('width', [45, 60, 72, 80, 100])
@pytest.mark.parametrize('uneven', [0, 6], ids=['typewriter', 'PDF'])
def test_wrapped_documents_are_told(width, uneven):
  """In a PDF letters are not equally wide, so that lines differ by some of them."""
  draw = random.Random(width)
  told = 0
  for _ in range(100):
    words, lines, line = ' '.join(draw.choices(SENTENCES, k=20)).split(), [], ''
    limit = width
    for word in words:
      if len(line) + 1 + len(word) > limit:
        lines.append(line)
        line, limit = word, width - draw.randint(0, uneven)
      else:
        line = f'{line} {word}'.strip()
    told += wrapping.is_wrapped('\n'.join([*lines, line]))
  assert told == 100


@given(PARAGRAPHS, st.sampled_from(['\n', '\n\n']), st.sampled_from(['auto', 'paragraphs', 'sentences']))
def test_paragraphs_and_sentences_a_line_are_left(paragraphs, between, how):
  for text in (between.join(paragraphs), between.join(re.split(r'(?<=[.!?]) (?=[A-Z])', ' '.join(paragraphs)))):
    assert wrapping.unwrapped(text, how) == text


@given(st.lists(st.text(st.characters(exclude_categories=['Cs']), max_size=90), max_size=12))
def test_joining_loses_nothing_but_hyphens_and_spaces(lines):
  text = '\n'.join(lines)
  squeezed = lambda text: re.sub(r'[\s\xad\u2010-]', '', text)
  for how in ('auto', 'wrapped'):
    assert squeezed(wrapping.unwrapped(text, how)) == squeezed(text)


@pytest.mark.parametrize('text', [
    'no punctuation is in this corpus of speech\nwhich has an utterance a line\nand all of them in small letters\n'
    'some are short\nothers are a good deal longer than the line before them was',
    'Milk\nButter\nBread\nCheese\nEggs\nApples', 'The Title of the Work\nA First Chapter\nThe Second Chapter of It.',
    '- one item of a list that is long\n- another item of that same list\n- the last item of that list.',
    '这是第一段，它很长，有很多字，一直写到这里才结束。\n这是第二段，它也很长，有很多字，写到这里结束。'])
def test_what_only_looks_so_is_left(text):
  assert not wrapping.is_wrapped(text)


def test_hyphens():
  lines = ['The well-known people of an inter-', 'national fair praised their co-',
           'operation, which is the very well-', 'known and, since it grew, soft\xad',
           'ened wish of all of them in 1990-', '1995, and again of classes A-',
           'B and more that came afterwards.']
  assert wrapping.unwrapped('\n'.join(lines), 'wrapped') == (
      'The well-known people of an international fair praised their cooperation, which is the very well-known and, '
      'since it grew, softened wish of all of them in 1990- 1995, and again of classes A- B and more that came '
      'afterwards.')


def test_items_of_lists_are_paragraphs():
  lines = ['* One item that has so many words that', '  it goes on in another line, and it is', '  in three lines.',
           '* Another item that has as many words', '  as it takes to need another line too.']
  assert wrapping.unwrapped('\n'.join(lines), 'auto') == (
      '* One item that has so many words that it goes on in another line, and it is in three lines.\n'
      '* Another item that has as many words as it takes to need another line too.')


def test_chinese_is_joined_without_spaces():
  sentence = '从前有座山，山里有座庙，庙里有个老和尚在给小和尚讲故事，他讲的是什么呢？'
  text = sentence * 8
  wrapped = '\n'.join(text[at:at + 30] for at in range(0, len(text), 30))
  assert wrapping.unwrapped(wrapped, 'auto') == text


def test_a_long_document_is_joined_in_linear_time():
  text = '\n'.join(['A line that is as long as any other one is here'] * 60_000)  # hours, if in squares
  assert wrapping.unwrapped(text, 'wrapped') == text.replace('\n', ' ')


def test_the_setting_reaches_the_text(tmp_path):
  wrapped = textwrap.fill(' '.join(SENTENCES), 60, break_on_hyphens=False)
  (tmp_path / 'a.txt').write_text(wrapped)
  texts = lambda lines: [one.text for one in sources.documents(str(tmp_path / 'a.txt'),
                                                               options=sources.formats.Options(lines=lines))]
  assert texts('auto') == texts('wrapped') == [' '.join(SENTENCES)] and texts('paragraphs') == [wrapped]
