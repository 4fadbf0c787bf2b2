"""Characters that stand for something while wikitext is cleaned, and a shield for characters that are no markup.

They are code points that Unicode sets aside for programs: `document.valid` leaves none of them in a text.
"""

GAP = '\ufdd0'  # something that shows nothing was here
UNKNOWN = '\ufdd1'  # something was here that may have shown text: what stands around it decides
ASIDE = '\ufdd2'  # a pronunciation and the like: in brackets it can go
LOST = '\ufdd3'  # something that shows text was here: its sentence must go
ITEM = '\ufdd4'  # before a list item
MARKS = GAP + UNKNOWN + ASIDE + LOST
_SPECIAL = "<>[]{}|='*#:;!_&-"
_HIDDEN = {character: chr(0xfdd8 + i) for i, character in enumerate(_SPECIAL)}
_SHIELD = str.maketrans(_HIDDEN)
_UNSHIELD = str.maketrans({hidden: character for character, hidden in _HIDDEN.items()})
EQUALS = _HIDDEN['=']


def shield(text: str) -> str:
  """Text in which nothing is markup any more."""
  return text.translate(_SHIELD)


def unshield(text: str) -> str:
  return text if text.isascii() else text.translate(_UNSHIELD)
