"""The original's tokenizer, written again from what is known of it (docs/fidelity.md, 2.9), character by character."""

import unicodedata

CJK = [(0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
       (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)]
ASCII_PUNCTUATION = [*range(33, 48), *range(58, 65), *range(91, 97), *range(123, 127)]
LONGEST = 200


class Spaced(dict):
  """What str.translate puts in the place of each character: nothing, a space, or itself, a CJK one between spaces."""

  def __missing__(self, code):
    character = chr(code)
    category = unicodedata.category(character)
    if character in ' \t\n\r' or category == 'Zs':
      self[code] = ' '
    elif code in (0, 0xFFFD) or category in ('Cc', 'Cf'):
      self[code] = ''
    elif any(first <= code <= last for first, last in CJK):
      self[code] = f' {character} '
    else:
      self[code] = character
    return self[code]


class Original(dict):
  """{word without white space: ids}, filled as words are met; `ids` of a text."""

  def __init__(self, tokens, lower_case):
    self.vocabulary, self.lower_case, self.spaced = {token: i for i, token in enumerate(tokens)}, lower_case, Spaced()

  def ids(self, text):
    return [i for word in text.translate(self.spaced).split() for i in self[word]]

  def __missing__(self, word):
    whole = word
    if self.lower_case:
      word = ''.join(c for c in unicodedata.normalize('NFD', word.lower()) if unicodedata.category(c) != 'Mn')
    found, part = [], ''
    for character in word:
      if ord(character) in ASCII_PUNCTUATION or unicodedata.category(character)[0] == 'P':
        found += self.pieces(part) + self.pieces(character)
        part = ''
      else:
        part += character
    self[whole] = found + self.pieces(part)
    return self[whole]

  def pieces(self, word):
    """Greedily the longest piece; one that is missing makes the whole word unknown, and so does its length."""
    found, start = [], 0
    while start < len(word):
      for end in range(len(word), start, -1) if len(word) <= LONGEST else ():
        piece = ('##' if start else '') + word[start:end]
        if piece in self.vocabulary:
          found.append(self.vocabulary[piece])
          start = end
          break
      else:
        return [self.vocabulary['[UNK]']]
    return found
