"""Our ids are the library's on any text, special tokens never come from text, and a bad vocabulary is refused."""

import gzip
import io
import itertools
import pathlib
import re

import numpy as np
import original_tokenizer
import pytest
from hypothesis import given, settings, strategies as st

from input_pipeline import records
from input_pipeline.vocabulary import original_rules, tokenizer, word_cache

VOCAB = pathlib.Path(__file__).parents[2] / 'shared/data/vocab'
TOKENS = [*tokenizer.SPECIAL, *'abcdefghijklmnopqrstuvwxyz', *(f'##{c}' for c in 'abcdefghijklmnopqrstuvwxyz'), 'want',
          '##want', '##ed',
          'runn', '##ing', 'un', ',', '.', '[', ']', 'mask', '博', '推', 'é', '#', '##']
CASED = [*TOKENS, 'A', 'M', '##A']
AWKWARD = st.text(st.one_of(
    st.sampled_from(
        'ab cDÉßİΣς\x00\x01\t\n\r\x0b\x0c\x1c\x85\xa0\u2028\u3000\u200b\ufeff\ufffd\xad中文博推한かな\u0301##[]'
        'MASK.,-_“…😀\U0002f800'),
    st.characters()), max_size=60)
PARTS = st.lists(st.one_of(
    AWKWARD, st.sampled_from(['[MASK]', '[SEP] ', ' [UNK]', 'x' * 200, 'x' * 201, 'unwanted', '##ing'])),
    max_size=6).map(''.join)


def write(path, tokens):
  path.write_text('\n'.join(tokens) + '\n')
  return path


@pytest.fixture(scope='module')
def both(tmp_path_factory):
  folder = tmp_path_factory.mktemp('vocabularies')
  loaded = [tokenizer.load(write(folder / name, tokens))
            for name, tokens in (('uncased.txt', TOKENS), ('cased.txt', CASED))]
  return [(ours, tokenizer.wordpiece_library(ours.tokens, ours.lower_case)) for ours in loaded]


@settings(max_examples=1000, deadline=None)
@given(st.lists(PARTS, max_size=4))
def test_ids_are_the_librarys(both, texts):
  for ours, library in both:
    found = ours.encode(texts)
    assert len(found) == len(texts)
    for text, ids in zip(texts, found):
      assert ids.tolist() == library.encode(text.encode('utf-8', 'replace').decode(), add_special_tokens=False).ids
      assert ids.dtype == np.int32 and not set(ids.tolist()) & {ours.pad_id, ours.cls_id, ours.sep_id, ours.mask_id}


@pytest.mark.skipif(not VOCAB.exists(), reason='../shared/data/vocab is not here')
@pytest.mark.parametrize('name, lower', [('uncased', True), ('cased', False), ('chinese', True)])
def test_published_vocabularies(name, lower):
  ours = tokenizer.load(VOCAB / f'bert-base-{name}-vocab.txt')
  assert (ours.lower_case, ours.pad_id, ours.unk_id, ours.cls_id, ours.sep_id, ours.mask_id) == (lower, 0, 100, 101,
      102, 103)
  library = tokenizer.wordpiece_library(ours.tokens, lower)
  texts = ['Unaffable [MASK] naïve co-operation, 1,234.5 km² “quoted” 中文字符，混合text。', 'a\xa0b\tc\x0bd\u2028e  f']
  assert [ids.tolist() for ids in ours.encode(texts)] == [library.encode(text, add_special_tokens=False).ids
                                                          for text in texts]


def test_vectors_of_the_originals_own_test(tmp_path):
  tokens = ['[UNK]', '[CLS]', '[SEP]', 'want', '##want', '##ed', 'wa', 'un', 'runn', '##ing', ',', '[PAD]', '[MASK]']
  ours = tokenizer.load(write(tmp_path / 'vocab.txt', tokens))
  # tokenization_test.py, test_full_tokenizer
  assert ours.encode(['UNwant\u00E9d,running'])[0].tolist() == [7, 4, 5, 10, 8, 9]
  assert ours.decode([7, 4, 5, 10, 8, 9]) == 'unwanted , running'
  assert ours.is_continuation.tolist() == [token.startswith('##') for token in tokens]


def test_the_cache_is_capped_and_changes_nothing():
  asked = []
  cache = word_cache.WordCache(lambda word: asked.append(word) or [len(word)], capacity=10)
  words = [f'w{i % 37}' for i in range(500)]
  assert b''.join(map(cache.__getitem__, words)) == np.array([len(word) for word in words], '<i4').tobytes()
  assert len(cache) <= 10 and len(asked) > 37


@settings(deadline=None)
@given(st.lists(PARTS, max_size=4), st.booleans())
def test_words_are_numbered_alike_with_arrow_and_without(texts, lower_case):
  data, bounds, counts = word_cache.cut(texts, lower_case)
  lines = [text.replace('\n', ' ').encode('utf-8', 'replace') + b'\n' for text in texts]
  assert data == b''.join(line.lower() if lower_case else line for line in lines)
  words = [re.findall(rb'[!-/:-@\[-`{-~]|[^ \n!-/:-@\[-`{-~]+', line.lower() if lower_case else line) for line in lines]
  which, distinct = word_cache.factorize(data, bounds)
  assert counts.tolist() == list(map(len, words)) and len(set(distinct)) == len(distinct)
  assert [distinct[i].strip(' \n').encode() for i in which] == [word for line in words for word in line]
  without, the_same = word_cache.factorize_without_arrow(data, bounds)
  assert (without.tolist(), the_same) == (which.tolist(), distinct)


def test_processes_tell_each_other_the_words_that_they_know(tmp_path):
  asked = []
  first, second = (word_cache.WordCache(lambda word, name=name: asked.append(name + word) or [len(word)])
                   for name in 'ab')
  for cache in (first, second):
    cache.exchange(tmp_path)
  theirs = [first['one'], first['three']]
  first.exchange(tmp_path)
  second['two']
  second.exchange(tmp_path)
  assert [second['one'], second['three']] == theirs and asked == ['aone', 'athree', 'btwo']
  first.exchange(tmp_path)
  assert first['two'] == second['two'] and asked == ['aone', 'athree', 'btwo']


def test_lower_case_is_told_by_the_vocabulary_unless_set(tmp_path):
  assert tokenizer.load(write(tmp_path / 'a.txt', TOKENS)).lower_case
  assert not tokenizer.load(write(tmp_path / 'b.txt', CASED)).lower_case
  assert not tokenizer.load(tmp_path / 'a.txt', lower_case=False).lower_case


@given(st.lists(st.sampled_from([*tokenizer.SPECIAL, 'the', ' ', 'x', '[', ']']), max_size=8).map(''.join))
def test_no_special_token_comes_from_text_whose_model_has_them_as_symbols(symbols, text):
  """As where a trainer was given them as user_defined_symbols."""
  ids = symbols.encode([text])[0].tolist()
  assert not {symbols.pad_id, symbols.cls_id, symbols.sep_id, symbols.mask_id} & set(ids)
  assert symbols.decode(ids).replace(' ', '') == text.replace(' ', '')


@pytest.fixture(scope='module')
def symbols(tmp_path_factory):
  import sentencepiece
  path, model = tmp_path_factory.mktemp('symbols') / 'spm.model', io.BytesIO()
  sentencepiece.SentencePieceTrainer.Train(
      sentence_iterator=iter(['the text has x and [CLS] [SEP] [MASK] [PAD] [UNK]'] * 20), model_writer=model,
      vocab_size=36, pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, pad_piece='[PAD]', unk_piece='[UNK]', minloglevel=2,
      user_defined_symbols=['[CLS]', '[SEP]', '[MASK]', '[', ']', *'CLSEPMAKDUN'], hard_vocab_limit=False)
  path.write_bytes(model.getvalue())
  return tokenizer.load(path)


@pytest.mark.parametrize('tokens, message', [
    (TOKENS[:4] + TOKENS[5:], r'no \[MASK\]'), (TOKENS[1:], r'no \[PAD\]'), (['a'], r'\[PAD\], \[UNK\]'),
    (TOKENS + ['a'], 'twice'), ([], 'empty')])
def test_a_bad_vocabulary_is_refused(tmp_path, tokens, message):
  path = tmp_path / 'vocab.txt'
  path.write_text('\n'.join(tokens))
  with pytest.raises(records.DataError, match=message) as error:
    tokenizer.load(path)
  assert 'vocab.txt' in str(error.value) and '\n' not in str(error.value)


def test_missing_or_damaged_files(tmp_path):
  with pytest.raises(records.DataError, match='no such file'):
    tokenizer.load(tmp_path / 'none.txt')
  (tmp_path / 'spm.model').write_bytes(b'nonsense')
  with pytest.raises(records.DataError, match='not a SentencePiece model'):
    tokenizer.load(tmp_path / 'spm.model')

# ---------------------------------------------------------------- the original's rules

SCRIPTS = st.text(st.one_of(
    st.sampled_from('ab cDÉßİΣσς.ΑΒ\'^`:\x00\x01\t\n\r\x0b\x1c\x85\xa0\u2028\u3000\u200b\ufeff\ufffd\xad\ue000\u0378'
                    '中文博推한かな\u0301\u08d4##[]MASK.,-_“…😀\U0002b830\U0002f800\U0001f9ff'),
    st.characters(exclude_categories=['Cs']), st.characters(categories=['Mn', 'Mc', 'Cc', 'Cf', 'Co', 'Zs', 'Pd'])),
    max_size=40)
BOUNDS = st.builds(lambda letter, count: letter * count, st.sampled_from(['a', 'É', 'ß', 'x\u0301', 'か', '.', '博']),
                   st.sampled_from([50, 99, 100, 101, 199, 200, 201]))


@pytest.fixture(scope='module')
def originals(tmp_path_factory):
  folder = tmp_path_factory.mktemp('vocabularies')
  paths = [write(folder / name, [*tokens, 'σ', 'ς', 'α', '##σ', '##ς', '##α', 'ab', '\ue000', '##\ue000', '\U0002b830'])
           for name, tokens in (('uncased.txt', TOKENS), ('cased.txt', CASED))]
  return [(tokenizer.load(path, lower_case, rules='google'), lower_case) for path in paths
          for lower_case in (True, False)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.one_of(SCRIPTS, BOUNDS, st.sampled_from(['[MASK]', '[SEP] ', 'unwanted', '##ing'])),
                         max_size=5).map(''.join), max_size=4))
def test_2_9_ids_are_the_originals(originals, texts):
  """FIDELITY 2.9; texts of every script, with controls, combining marks, brackets, words of up to 201 characters."""
  for ours, lower_case in originals:
    reference = original_tokenizer.Original(ours.tokens, lower_case)
    for text, ids in zip(texts, ours.encode(texts), strict=True):
      assert ids.tolist() == reference.ids(text)
      assert not set(ids.tolist()) & {ours.pad_id, ours.cls_id, ours.sep_id, ours.mask_id}


@pytest.mark.parametrize('text, original, library', [
    ('ab\ue000', ['ab', '\ue000'], ['ab']),  # of private use, and so no text to the library
    ('ΑΣ σ', ['ας', 'σ'], ['ασ', 'σ']),  # Python's lower case ends words with ς
    ('Α.Σ', ['α', '.', 'ς'], ['α', '.', 'σ']),
    ('a\U0002b830b', ['a', '\U0002b830', 'b'], ['a\U0002b830b']),  # the library's range of ideographs begins later
    ('a\u08d4b', ['ab'], ['a\u08d4b'])])  # a mark since Unicode 9: the library knows those of Unicode 8
def test_2_9_where_the_rules_differ(text, original, library):
  """What docs/fidelity.md lists: should the library change, its table is to change too."""
  split = tokenizer.wordpiece_library(TOKENS, True)
  assert [word for word, _ in split.pre_tokenizer.pre_tokenize_str(split.normalizer.normalize_str(text))] == library
  joined = lambda words: [''.join(words)] if original == ['ab', '\ue000'] else words
  assert original_rules.words(original_rules.settle_case(text), True) == joined(original)


def test_2_9_a_word_of_more_than_200_characters_is_unknown(both):
  for ours, _ in both:
    assert [set(ids.tolist()) == {ours.unk_id} for ids in ours.encode(['x' * 100, 'x' * 200, 'x' * 201])] == [
        False, False, True]


@pytest.mark.skipif(not VOCAB.exists(), reason='../shared/data is not here')
@pytest.mark.parametrize('name, files', [
    ('uncased', ['wikipedia/enwiki_featured_4012.txt.gz', 'tasks/wnut17/emerging.test.conll']),
    ('cased', ['wikipedia/enwiki_featured_4012.txt.gz', 'tasks/wnut17/emerging.test.conll']),
    ('chinese', ['wikipedia/zhwiki-one-page.xml', 'tasks/cmrc2018/cmrc2018_trial.json'])])
def test_2_9_real_lines(name, files):
  ours = tokenizer.load(VOCAB / f'bert-base-{name}-vocab.txt', rules='google')
  reference = original_tokenizer.Original(ours.tokens, ours.lower_case)
  for file in files:
    with (gzip.open if file.endswith('.gz') else open)(VOCAB.parent / file, 'rb') as stream:
      lines = [line.decode('utf-8', 'ignore') for line in itertools.islice(stream, 300)]
    assert [ids.tolist() for ids in ours.encode(lines)] == [reference.ids(line) for line in lines]
