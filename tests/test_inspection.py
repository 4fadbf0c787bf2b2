"""What `inspect` shows is what is there, and a fault in a shard is found before anything is shown."""

import dataclasses
import hashlib
import json
import pathlib
import tempfile
import unicodedata

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import synthetic

from input_pipeline import inspection, records
from input_pipeline.batches.masking import Masking
from input_pipeline.inspection import inspect, tokens as tokens_lib
from launch import cli

WORDS = [*'alpha beta gamma delta omega amp cite nbsp ref Straße мир Ωmega 中 日 の ##s'.split(), *"{}[]|&;.,<>-'="]
VOCABULARY = [*synthetic.SPECIALS, *WORDS]
SENTENCES = [*synthetic.SPECIALS, '▁alpha', '▁beta', 'mir', '▁мир', '<0xE4>', '{', '}', '▁&', 'amp', ';', '.']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return synthetic.write_data(tmp_path_factory.mktemp('data'), splits=('train', 'validation'))


def planted(folder, splits: dict[str, list[tuple[int, list[str]]]], vocabulary=VOCABULARY, kind='wordpiece'):
  """Data of these pieces, [(document, sentences)]; a word that the vocabulary lacks is unknown."""
  ids = {token: place for place, token in enumerate(vocabulary)}
  (folder / records.VOCABULARY).write_text('\n'.join(vocabulary) + '\n')
  sha256 = hashlib.sha256((folder / records.VOCABULARY).read_bytes()).hexdigest()
  written = {}
  for name, pieces in splits.items():
    found = np.array([ids.get(word, 1) for _, sentences in pieces for word in ' '.join(sentences).split()], '<u2')
    block = synthetic.make_block(
        [(document, [len(sentence.split()) for sentence in sentences]) for document, sentences in pieces], found)
    shard = synthetic.write_shard(folder / records.shard_name(name, 0, 1), [block])
    written[name] = records.Split(len({document for document, _ in pieces}), len(pieces), len(block.sentence_lengths),
                                  len(found), int((found == 1).sum()), (shard,))
  records.write_manifest(folder, records.Manifest(
      64, 'dynamic', records.Vocabulary(kind, len(vocabulary), sha256, False, 0, 1, 2, 3, 4), written,
      settings={}, counts={}, packages={}))
  return folder


def test_the_report_counts_what_is_there(data):
  report = inspect(data, examples=2)
  manifest = records.read_manifest(data)
  for name, split in manifest.splits.items():
    found = report.splits[name]
    assert (found.pieces, found.tokens, found.documents) == (split.pieces, split.tokens, split.documents)
    assert sum(found.lengths) == split.pieces and len(found.examples) == 2 and found.read_share == 1
    real = (split.tokens + 3 * split.pieces) / (split.pieces * 64)
    assert found.padding_share == pytest.approx(1 - real)
    assert found.rows == split.pieces > found.rows_packed > split.tokens // 64
  assert report.documents is None and report.copies.pieces > 0


def test_lengths_are_five_numbers_that_are_there(tmp_path):
  made = [(document, [length]) for document in range(5) for length in [10 * (document + 1)] * (document + 1)]
  split = inspect(synthetic.write_data(tmp_path, made=made, shards=1)).splits['train']
  assert split.sentence_tokens == (10, 30, 40, 50, 50)
  assert split.piece_tokens == (13, 33, 43, 53, 53)
  assert split.document_pieces == (1, 2, 3, 4, 5)
  assert split.lengths == (0, 1, 2, 0, 3, 4, 5, 0)  # bins of 8: 13, 23, 33, 43, 53


def test_tokens_are_counted_and_named(tmp_path):
  line = 'alpha beta ##s . alpha мир 中 , alpha unheard beta'
  tokens = inspect(planted(tmp_path, {
      'train': [(1, [line] * 2), (2, ['Ωmega Straße'])], 'validation': [(3, ['alpha gamma'])]})).tokens
  assert tokens.read == 26
  assert tokens.frequent[:2] == (('alpha', 7 / 26), ('beta', 4 / 26))
  assert ('##s', 2 / 26) in tokens.frequent_with_letters and ('.', 2 / 26) in tokens.frequent
  assert '.' not in dict(tokens.frequent_with_letters) and '[UNK]' not in dict(tokens.frequent)
  used = {'alpha', 'beta', '##s', '.', 'мир', '中', ',', 'Ωmega', 'Straße', 'gamma'}
  assert tokens.never == len(set(WORDS) - used)
  assert tokens.unknown == ('betas. alpha мир中, alpha [UNK] beta alpha betas. alpha мир中',
                            'betas. alpha мир中, alpha [UNK] beta')
  letters = {'Latin': 7 * 5 + 4 * 4 + 2 + 4 + 6 + 5, 'Cyrillic': 2 * 3, 'Han': 2, 'Greek': 1}
  assert tokens.scripts == {name: pytest.approx(count / sum(letters.values())) for name, count in letters.items()}


def test_unknown_tokens_are_counted_by_split(tmp_path):
  report = inspect(planted(tmp_path, {
      'train': [(1, ['alpha ?? beta beta']), (2, ['alpha alpha alpha alpha'])], 'validation': [(3, ['?? !! alpha'])]}))
  assert (report.splits['train'].unknown_share, report.splits['validation'].unknown_share) == (1 / 8, 2 / 3)
  shown = inspection.text(report)
  assert '12.500%' in shown and 'warning: 12.5% of the tokens of train are unknown' in shown


def test_remains_of_markup_are_counted_with_an_example(tmp_path):
  report = inspect(planted(tmp_path, {'train': [
      (1, ['alpha { { cite | beta } } gamma', 'alpha & amp ; beta & nbsp ; .']),
      (2, ['[ [ alpha | beta ] ] - { gamma } < ref > alpha < / ref', "' ' ' beta ' ' ' = = alpha = ="]),
      (3, ['alpha & beta ; gamma < alpha > [ beta ] { gamma } - ; alpha { beta { gamma [ ?? ]'])]}))  # none of them
  assert {name: remain.count for name, remain in report.tokens.remains.items()} == {
      '{{': 1, '}}': 1, '[[': 1, ']]': 1, '-{': 1, '|': 2, "'''": 2, '==': 2, '&amp;': 2, '<ref>': 1}
  assert report.tokens.remains['&amp;'].context.endswith('gamma alpha& amp; beta& nbsp;.')
  assert 'markup left, {{       1, as in … alpha{{ cite| beta' in inspection.text(report)


def test_markup_does_not_run_from_one_piece_to_the_next(tmp_path):
  report = inspect(planted(tmp_path, {'train': [(1, ['alpha {']), (2, ['{ beta'])]}))
  assert not report.tokens.remains and 'no markup left' in inspection.text(report)


def test_text_of_sentencepiece_keeps_its_spaces(tmp_path):
  tokens = inspect(planted(tmp_path, {'train': [
      (1, ['▁alpha mir { { ▁& amp ; ▁мир']), (2, ['▁beta <0xE4> ▁& ▁alpha ;'])]}, SENTENCES, 'sentencepiece')).tokens
  assert tokens.remains['{{'].context == 'alphamir{{ &amp; мир' and tokens.remains['&amp;'].count == 1
  assert tokens.scripts == {'Latin': pytest.approx(20 / 23), 'Cyrillic': pytest.approx(3 / 23)}  # a byte is no letter


@pytest.mark.parametrize('letters, script', [
    ('aÉßＡºﬁ𝐀K', 'Latin'), ('яЁ', 'Cyrillic'), ('αΏ', 'Greek'), ('中々㐀𠀀', 'Han'), ('のゝ', 'Hiragana'),
    ('カｶー', 'Katakana'), ('한ᄀ', 'Hangul'), ('ابﷲ', 'Arabic'), ('אב', 'Hebrew'), ('कष', 'Devanagari'),
    ('กข', 'Thai'), ('ბ', 'Georgian'), ('է', 'Armenian'), ('அ', 'Tamil'), ('አ', 'Ethiopic')])
def test_letters_have_the_script_of_their_names(letters, script):
  assert {tokens_lib.script(letter) for letter in letters} == {script}


@hypothesis.given(st.characters(categories=['L']))
def test_every_letter_has_a_script(letter):
  assert tokens_lib.script(letter).isalpha() or not unicodedata.name(letter, '')


NUMBERS = [*synthetic.SPECIALS, *(f'w{i}' for i in range(5000))]


def test_copies_between_the_splits_are_found(tmp_path):
  """Of 10 pieces 2 are those of train, 2 mostly text of train that is cut elsewhere, 1 half so; one is too short."""
  rng = np.random.default_rng(0)
  fresh = lambda length=50: [f'w{i}' for i in rng.integers(0, 5000, length)]
  train = [fresh() for _ in range(40)]
  held = [train[3], train[7], train[11][20:] + train[12][:20], fresh(5) + train[20][:45], train[30][:25] + fresh(25),
          train[1][:9], *(fresh() for _ in range(5))]
  splits = {'train': train, 'validation': held}
  report = inspect(planted(tmp_path, {
      name: [(i, [' '.join(words)]) for i, words in enumerate(pieces)] for name, pieces in splits.items()}, NUMBERS))
  copies = report.copies
  assert (copies.pieces, copies.exact_share, copies.near_share, copies.train_share) == (10, 0.2, 0.2, 1)
  assert copies.examples[0].split()[:3] == train[3][:3]
  shown = inspection.text(report)
  assert 'warning: 40.0% of the validation pieces stand in train too' in shown and '20.00%: 80 % of' in shown


def test_data_without_copies_or_without_validation(tmp_path):
  rng = np.random.default_rng(1)
  pieces = lambda: [(i, [' '.join(f'w{j}' for j in rng.integers(0, 5000, 30))]) for i in range(20)]
  report = inspect(planted(tmp_path, {'train': pieces(), 'validation': pieces()}, NUMBERS))
  assert (report.copies.exact_share, report.copies.near_share, report.copies.examples) == (0, 0, ())
  assert not report.warnings
  report = inspect(planted(tmp_path, {'train': pieces()}, NUMBERS))
  assert report.copies is None and 'no document is held out' in report.warnings[0]


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(st.lists(st.lists(st.sampled_from([*WORDS, 'unheard']), min_size=2, max_size=30), min_size=2,
                           max_size=20))
def test_any_pieces_have_figures_that_add_up(pieces):
  with tempfile.TemporaryDirectory() as folder:
    made = [(number, [' '.join(words)]) for number, words in enumerate(pieces)]
    report = inspect(planted(pathlib.Path(folder), {'train': made, 'validation': made}))
  tokens, words = report.tokens, [word for words in pieces for word in words]
  assert tokens.read == 2 * len(words) == sum(split.tokens for split in report.splits.values())
  assert tokens.never == len(set(WORDS) - set(words))
  assert all(share == words.count(token) / len(words) for token, share in tokens.frequent)
  assert not tokens.scripts or sum(tokens.scripts.values()) == pytest.approx(1)
  assert bool(tokens.unknown) == ('unheard' in words) and all('[UNK]' in context for context in tokens.unknown)
  assert report.splits['train'].unknown_share == words.count('unheard') / len(words)
  looked_up = [words for words in pieces if len(words) >= 10]
  assert report.copies.pieces == len(looked_up) and report.copies.exact_share == bool(looked_up)
  assert all(len(line) <= 120 for line in inspection.text(report).splitlines())


@pytest.mark.parametrize('sequence_length', [128, 512])
def test_two_screens_are_enough(tmp_path, sequence_length):
  data = synthetic.write_data(tmp_path, splits=('train', 'validation'), sequence_length=sequence_length)
  synthetic.rewrite_manifest(data, lambda fields: fields.update(counts={
      'pages': 700, 'documents': 100, 'redirects': 500, 'empty': 100, 'sentences_left_out': 12,
      'template/other': 7, **{f'template/name {i}': i for i in range(200)}}))
  lines = inspection.text(inspect(data)).splitlines()
  assert len(lines) <= 100 and max(map(len, lines)) <= 120
  shown = '\n'.join(lines)
  assert 'dropped: redirects' in shown and 'sentences left out 12' in shown
  assert 'name 199 199, name 198 198' in ' '.join(shown.split())
  assert f'{sum(range(180)) + 7:,} with other names' in ' '.join(shown.split())


def test_json_is_all_there_is_on_stdout(data, capsys, monkeypatch):
  monkeypatch.setattr('sys.argv', ['bert-jax', 'inspect', str(data), '--json', '--examples', '2'])
  with pytest.raises(SystemExit) as ended:
    cli.main()
  out = capsys.readouterr().out
  assert ended.value.code == 0 and out.count('\n') == 1
  found = json.loads(out)
  assert found == json.loads(json.dumps(dataclasses.asdict(inspect(data, examples=2))))
  assert found['splits']['train']['pieces'] == 600 and len(found['splits']['validation']['examples']) == 2


def test_sampled_figures_say_so(tmp_path):
  data = synthetic.write_data(tmp_path, pieces=600, block=2, splits=('train', 'validation'))
  report = inspect(data, most_tokens=1000)
  train = report.splits['train']
  assert 0 < train.read_share < 0.5 and train.document_pieces is None
  assert 0 < sum(train.lengths) < train.pieces == 600 and report.tokens.read < train.tokens
  assert report.copies.train_share == train.read_share
  assert report == inspect(data, most_tokens=1000)
  assert f'{train.read_share:.1%}' in inspection.text(report)


def test_packed_examples_show_their_pairs(data):
  report = inspect(data, examples=4, pack=True)
  assert 'pair 2: label' in inspection.text(report)
  assert report.splits['train'].padding_share_packed < report.splits['train'].padding_share


def test_examples_show_text_masks_and_pairs(data):
  shown = inspection.text(inspect(data, examples=3, masking=Masking(mask=1, random=0)))
  assert 'train, example 3:' in shown and 'validation, example 1:' in shown and 'SHA-256' in shown
  assert '[CLS]' in shown and '[MASK]' in shown
  assert 'label 0, B follows A' in shown and 'label 1, B is of another document' in shown
  examples = shown[shown.index('train, example 1'):]
  assert '##' not in examples and '{' in examples


def test_google_pairs_are_shown(tmp_path):
  assert 'label 1' in inspection.text(inspect(synthetic.write_data(tmp_path, pairs='google'), examples=3))


def test_one_document_can_be_looked_at(tmp_path):
  assert 'one segment' in inspection.text(inspect(synthetic.write_data(tmp_path, pieces=20, documents=1)))


def test_masks_of_a_schedule_have_their_slots(data):
  shown = inspection.text(inspect(data, examples=1, masking=Masking(schedule=((0, .5), (10, .1)))))
  assert 'predicted' in shown


@pytest.mark.parametrize('change, name', [
    ({'examples': -1}, 'examples'), ({'pairs': 'foo'}, 'batch.pairs'), ({'seed': -1}, 'batch.seed')])
def test_settings_that_cannot_work_are_refused_by_name(data, change, name):
  with pytest.raises(records.DataError, match=name):
    inspect(data, **change)


def test_a_flipped_byte_is_found(tmp_path):
  data = synthetic.write_data(tmp_path)
  path = data / records.shard_name('train', 1, 3)
  content = bytearray(path.read_bytes())
  content[np.random.default_rng(0).integers(len(content))] ^= 1
  path.write_bytes(bytes(content))
  with pytest.raises(records.DataError, match='SHA-256'):
    inspect(data)
