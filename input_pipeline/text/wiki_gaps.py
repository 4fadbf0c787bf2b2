"""What stood where something was left out: closed gaps, and sentences that go with what they would lack."""

import collections
import re

from input_pipeline.text import sentences
from input_pipeline.text.wiki_marks import ASIDE, GAP, LOST, MARKS, UNKNOWN

_LONGEST = 4000  # characters of a paragraph that the splitter gets at once: its time grows with their square
_ANY = re.compile(f'[{MARKS}]')
_TO_DECIDE = re.compile(f'[{UNKNOWN}{ASIDE}]')
_ENDS = '.!?。！？…।։؟'
_CLOSING = '\'"”’»)]）」』'
_AFTER_SENTENCE = re.compile(rf'[{re.escape(_ENDS)}:][{re.escape(_CLOSING)}\s{GAP}]*$')
_FOLLOWS_WORD = re.compile(r'[^\W\d_]$')
_CJK = re.compile('[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]$')
_MARK_IN_BRACKETS = re.compile(rf'\s*[(（\[][\s,;:/–—，；、]*(?:[{GAP}{UNKNOWN}{ASIDE}][\s,;:/–—，；、{GAP}{UNKNOWN}{ASIDE}]*'
                               rf'(?:[(（][\s,;]*[)）][\s,;]*)?)[)）\]]')
_SPACES = re.compile(r'[ \t\xa0\r\f\v\x85\u2028\u2029]+')
# What a gap leaves: brackets with nothing in them, doubled commas, a space before a full stop.
_SEPARATOR = r'[\s,;:/–—，；、]'
_IN_BRACKETS = re.compile(rf' ?[(（](?:{_SEPARATOR}|{GAP})*{GAP}(?:{_SEPARATOR}|{GAP})*[)）]')
_AFTER_OPEN = re.compile(rf'([(（])(?:[\s,;，；、]|{GAP})*{GAP}(?:[\s,;，；、]|{GAP})*')
_BEFORE_CLOSE = re.compile(rf'(?:[\s,;，；、]|{GAP})*{GAP}(?:[\s,;，；、]|{GAP})*([)）])')
_DOUBLED = re.compile(rf'[,;，；、][ {GAP}]*{GAP}[ {GAP}]*(?=[,;，；、])')
_BEFORE_STOP = re.compile(rf'[ {GAP}]*{GAP}[ {GAP}]*([,.;:!?)，。；：！？）])')
_BETWEEN = re.compile(rf' ?{GAP}[ {GAP}]*')


def decide(line: str) -> str:
  """A line in which every mark is either a gap or lost text."""
  if not _ANY.search(line):
    return line
  if not line.strip(MARKS + ' \t\xa0.,;:'):  # alone on its line: nothing else is said there
    return ''
  if _TO_DECIDE.search(line):
    line = _MARK_IN_BRACKETS.sub(GAP, line)
    return _TO_DECIDE.sub(_decided, line)
  return line


def _decided(found: re.Match) -> str:
  line, at = found.string, found.start()
  before, after = line[max(0, at - 200):at], line[at + 1:at + 200]
  if found[0] == ASIDE:
    return GAP if max(before.rfind('('), before.rfind('（')) > max(before.rfind(')'), before.rfind('）')) else LOST
  bare = before.rstrip(MARKS)
  if not bare.strip():  # before a line's text stand boxes, unless the sentence goes on from them
    return LOST if re.match(r'[ \t][a-z\d,;.]', after) else GAP
  if bare == bare.rstrip() and re.match(rf'[\s{MARKS}.,;:!?)）。，]|$', after):  # no space before it: a note
    if bare[-1] in _ENDS + _CLOSING + ',;:' or _FOLLOWS_WORD.search(bare) and not _CJK.search(bare):
      return GAP
  if not after.strip(MARKS + ' \t'):  # after a whole sentence, at the end of the line
    return GAP if _AFTER_SENTENCE.search(bare) else LOST
  return LOST


def close(text: str, language: str, counts: collections.Counter) -> str:
  """A paragraph without the sentences that lack something, and with the gaps closed that the rest has."""
  text = _SPACES.sub(' ', text)
  if LOST in text:
    text = _without_lost(text, language, counts)
  if GAP in text:
    text = _IN_BRACKETS.sub(GAP, text)
    text = _AFTER_OPEN.sub(r'\1', text)
    text = _BEFORE_CLOSE.sub(r'\1', text)
    text = _DOUBLED.sub('', text)
    text = _BEFORE_STOP.sub(r'\1', text)
    text = _BETWEEN.sub(lambda found: ' ' if ' ' in found[0] else '', text)
  return text.strip()


def _without_lost(text: str, language: str, counts: collections.Counter) -> str:
  kept = []
  for start in range(0, len(text), _LONGEST):
    for sentence in sentences.whole(text[start:start + _LONGEST], language):
      if LOST in sentence:
        counts['sentences_left_out'] += 1
      else:
        kept.append(sentence)
  return ''.join(kept)
