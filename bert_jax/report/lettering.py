"""Names in pictures: by fonts that have their letters where such are installed, else written as escapes, not boxes."""

BASE = 'DejaVu Sans'  # comes with matplotlib
# Fonts of East Asia, and of much else, as systems install them.
FALLBACKS = ('Noto Sans CJK JP', 'Noto Sans CJK SC', 'Noto Sans CJK KR', 'Noto Sans CJK TC', 'Source Han Sans',
             'WenQuanYi Micro Hei', 'WenQuanYi Zen Hei', 'Droid Sans Fallback', 'IPAGothic', 'IPAexGothic',
             'TakaoGothic',
             'NanumGothic', 'Unifont', 'Arial Unicode MS', 'Hiragino Sans', 'PingFang SC', 'Apple SD Gothic Neo',
             'Microsoft YaHei', 'SimHei', 'MS Gothic', 'Yu Gothic', 'Malgun Gothic', 'Noto Sans Devanagari',
             'Noto Sans Arabic', 'Noto Sans Hebrew', 'Noto Sans Thai')


def families() -> list[str]:
  """The fonts that letters are looked up in, one after the other."""
  from matplotlib import font_manager
  installed = {entry.name for entry in font_manager.fontManager.ttflist}
  return [BASE, *(name for name in FALLBACKS if name in installed)]


def drawable(text: str) -> str:
  """The text with \\u4e2d in the place of each letter that none of the fonts has."""
  from matplotlib import font_manager
  fonts = [font_manager.get_font(font_manager.findfont(name)) for name in families()]
  has = lambda c: c.isprintable() and any(font.get_char_index(ord(c)) for font in fonts)
  return ''.join(c if has(c) else ascii(c)[1:-1] if not c.isascii() or not c.isprintable() else c for c in text)
