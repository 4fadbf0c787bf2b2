"""What stood where something was left out: closed gaps, and sentences that go with what they would lack."""

import collections
import re

from input_pipeline.text import sentences
from input_pipeline.text.wiki_marks import ASIDE, GAP, LOST, MARKS, UNKNOWN

_NEAR = 200  # characters around a mark that are looked at
_ANY = re.compile(f'[{MARKS}]')
_TO_DECIDE = re.compile(f'[{UNKNOWN}{ASIDE}]')
_ENDS = '.!?。！？…।։؟'
_CLOSING = '\'"”’»)]）」』'
_STOPS = f'{_ENDS}:'
_AFTER_SENTENCE = re.compile(rf'[{re.escape(_STOPS)}][{re.escape(_CLOSING)}\s{GAP}]*$')
_LETTER = re.compile(r'[^\W\d_]$')
# A pronunciation is part of the sentence only after such a word.
_ANNOUNCED = re.compile(r'\b(?:pronounced|as|is|or|like|prononcé|se prononce|gesprochen|ausgesprochen|pronunciado|'
                        r'pronunciato|uitgesproken|произносится)[\s:"“(]*$', re.IGNORECASE)
# The last letter of a script that writes no spaces.
_NO_SPACES = re.compile('[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]$')
_GOES_ON = re.compile(r'[ \t][a-z\d,;.]')
_AFTER_NOTE = re.compile(rf'[\s{MARKS}.,;:!?)）。，]|$')
_SPACES = re.compile(r'[ \t\xa0\r\f\v\x85\u2028\u2029]+')
_SEPARATORS = ' ,;，；、'
_IN_BRACKETS = re.compile(rf' ?[(（\[][{_SEPARATORS}:/–—{MARKS}]*[)）\]]')
_RUN = re.compile(f'[{_SEPARATORS}{GAP}]+')
_LEADING = f' {GAP}'


def decide(line: str) -> str:
  """A line in which every mark is either a gap or lost text."""
  if not _ANY.search(line):
    return line
  if not line.strip(MARKS + ' \t\xa0.,;:'):  # alone on its line: nothing else is said there
    return ''
  if _TO_DECIDE.search(line):
    line = _IN_BRACKETS.sub(_without_brackets, line)
    return _TO_DECIDE.sub(_decided, line)
  return line


def _without_brackets(found: re.Match) -> str:
  """Brackets that hold nothing but marks go with them; `()` of the source stays."""
  return GAP if _ANY.search(found[0]) else found[0]


def _decided(found: re.Match) -> str:
  line, at = found.string, found.start()
  before, after = line[max(0, at - _NEAR):at], line[at + 1:at + _NEAR]
  if found[0] == ASIDE:
    return LOST if _ANNOUNCED.search(before) else GAP
  before = before.rstrip(MARKS)
  if not before.strip():  # before a line's text stand boxes, unless the sentence goes on from them
    return LOST if _GOES_ON.match(after) else GAP
  if not before[-1].isspace() and _AFTER_NOTE.match(after):  # no space before it: a note
    if before[-1] in _ENDS + _CLOSING + ',;:' or _LETTER.search(before) and not _NO_SPACES.search(before):
      return GAP
  if not after.strip(MARKS + ' \t'):  # after a whole sentence, at the end of the line
    return GAP if _AFTER_SENTENCE.search(before) else LOST
  return LOST


def close(text: str, language: str, counts: collections.Counter) -> str:
  """A paragraph without the sentences that lack something, and with the gaps closed that the rest has."""
  text = _SPACES.sub(' ', text)
  if LOST in text:
    text = _without_lost(text, language, counts)
  if GAP in text:
    text = _RUN.sub(_closed, _IN_BRACKETS.sub(_without_brackets, text))
  return text.strip()


def _closed(found: re.Match) -> str:
  """What stays of the commas and spaces around a gap."""
  run, line = found[0], found.string
  if GAP not in run:
    return run
  before, after = line[found.start() - 1:found.start()], line[found.end():found.end() + 1]
  if before in ('', '(', '（') or after in (')', '）'):
    return ''
  kept, *others = run.split(GAP)
  for piece in others:
    word = kept.endswith(' ')  # what was left out was a word of its own, and no note after one
    if piece.strip():
      kept = piece.lstrip() if word else kept + piece
    else:
      kept = kept.rstrip() + ' ' if word or piece else kept
  return kept.rstrip(_SEPARATORS) if word and not piece.strip() and after and after in _STOPS else kept


def _without_lost(text: str, language: str, counts: collections.Counter) -> str:
  kept = []
  for sentence in sentences.whole(text, language):
    if LOST in sentence:
      counts['sentences_left_out'] += 1
      kept.append(sentence[:len(sentence) - len(sentence.lstrip(_LEADING))])
    else:
      kept.append(sentence)
  return ''.join(kept)
