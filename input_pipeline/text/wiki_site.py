"""What one must know of a wiki to clean its pages, and the names that differ from language to language."""

import dataclasses
import functools
import re

_FILE_KEYS, _CATEGORY_KEY = (-2, 6), 14  # namespaces of MediaWiki: Media, File; Category
# The names of files, media and categories in the large wikis, old and second ones too: a dump lists only the first.
_HIDDEN = frozenset('''
  file image media category datei bild medium kategorie archivo imagen medio categoría categoria fichier média
  catégorie immagine plik grafika kategoria ficheiro imagem arquivo multimédia bestand afbeelding categorie файл
  изображение медиа категория зображення медіа категорія tiedosto kuva luokka fil kategori soubor obrázek súbor
  obrázok kategória fájl kép fișier imagine dosya resim ortam medya berkas gambar tập_tin hình thể_loại ملف صورة وسائط
  تصنيف پرونده تصویر مدیا رده קובץ תמונה מדיה קטגוריה चित्र फ़ाइल मीडिया श्रेणी ไฟล์ ภาพ สื่อ หมวดหมู่ ファイル 画像
  メディア カテゴリ 文件 档案 檔案 图像 圖像 图片 圖片 媒体 媒體 媒体文件 媒體檔案 分类 分類 파일 그림 미디어 분류
  αρχείο εικόνα μέσο κατηγορία датотека слика медиј категорија datoteka slika kategorija картинка выява катэгорыя
  fitxer imatge attēls vaizdas pilt fail kategooria fitxategi irudi fails kategoreja delwedd শ্রেণী চিত্র
  বিষয়শ্রেণী'''.split())
_MAGIC = frozenset('''
  notoc forcetoc toc noeditsection newsectionlink nonewsectionlink nogallery hiddencat expectunusedcategory
  nocontentconvert nocc notitleconvert notc start end index noindex staticredirect disambig expectedunconnectedpage
  archivedtalk notalk noglobal nonewsection kein_inhaltsverzeichnis inhaltsverzeichnis inhaltsverzeichnis_erzwingen
  abschnitte_nicht_bearbeiten keine_galerie sin_tdc tdc forzar_tdc sin_galería no_editar_sección aucunsommaire
  sommaire forcersommaire sectionnoneditable sansgalerie nonindexable indice noindice forzaindice nomodificasezione
  notdc forcartdc semtdc naoeditarsecao без_огл огл обяз_огл без_редакт_разделов безсодержания без_оглавления
  без_змісту зміст 目次非表示 目次強制 目次 节不可编辑 无目录 無目錄 强显目录 強顯目錄 目录 目錄 bez_spisu spis inhoud
  geen_inhoud ingeninnehållsförteckning innehållsförteckning içindekileryok içindekiler'''.split())
# Sections at the end of an article that are lists, in lower case.
END_SECTIONS = frozenset(name.strip() for name in '''
  references; reference; external links; external link; further reading; see also; notes; bibliography; sources;
  footnotes; citations; notes and references; references and notes; works cited; cited works; general references;
  notes and citations; sources and further reading; references and further reading; external links and references;
  references and external links; general sources; cited sources; literature cited; cited literature; literature;
  selected bibliography; citations and references; explanatory notes; footnotes and references; endnotes;
  primary sources; secondary sources; specific references; external sources; related links; other references;
  notes and sources; sources and references; references and sources; bibliography and references;
  bibliography and further reading; einzelnachweise; weblinks; literatur; siehe auch; quellen; anmerkungen;
  anmerkungen und einzelnachweise; fußnoten; belege; nachweise; einzelnachweise und anmerkungen;
  quellen und einzelnachweise; literatur und quellen; weblink; references et notes; références; notes et références;
  liens externes; lien externe; voir aussi; bibliographie; annexes; articles connexes; sources et bibliographie;
  pour approfondir; notes et sources; références et notes; liens internes; lien interne; referencias;
  enlaces externos; enlace externo; véase también; vease también; bibliografía; notas; notas y referencias; fuentes;
  notas y bibliografía; referencias y notas; lecturas adicionales; lectura adicional; para saber más; note;
  note esplicative; fonti; altri progetti; collegamenti esterni; collegamento esterno; voci correlate; bibliografia;
  annotazioni; riferimenti; esplicative; bibliografiche; referências; ligações externas; ligação externa;
  links externos; ver também; notas e referências; leitura adicional; leituras adicionais; fontes; notas de rodapé;
  referências bibliográficas; referenties; bronnen; externe links; externe link; zie ook; literatuur; noten;
  voetnoten; bronvermelding; bronnen, noten en/of referenties; verder lezen; bronnen en referenties;
  bronnen, noten en referenties; примечания; ссылки; литература; см. также; смотрите также; источники; сноски;
  комментарии; библиография; использованная литература; дополнительная литература; внешние ссылки;
  примечания и ссылки; примітки; посилання; література; див. також; джерела; дивіться також; виноски; бібліографія;
  коментарі; przypisy; linki zewnętrzne; zobacz też; uwagi; źródła; literatura; link zewnętrzny; uwagi i przypisy;
  referenser; källor; externa länkar; se även; litteratur; noter; fotnoter; vidare läsning; tryckta källor;
  källförteckning; lähteet; aiheesta muualla; katso myös; kirjallisuutta; viitteet; kirjallisuus; huomautukset;
  kaynakça; dış bağlantılar; ayrıca bakınız; kaynaklar; notlar; dipnotlar; konuyla ilgili yayınlar; referanslar;
  المراجع; مراجع; مصادر; المصادر; انظر أيضا; انظر أيضًا; انظر أيضاً; وصلات خارجية; روابط خارجية; ملاحظات; هوامش;
  مراجع ومصادر; معرض صور; طالع أيضا; منابع; پانویس; پیوند به بیرون; جستارهای وابسته; یادداشت‌ها; یادداشت;
  پیوندهای بیرونی; منابع و مآخذ; برای مطالعهٔ بیشتر; सन्दर्भ; संदर्भ; बाहरी कड़ियाँ; इन्हें भी देखें; यह भी देखें;
  बाहरी कड़ियां; टिप्पणी; सन्दर्भ ग्रन्थ; स्रोत; ग्रन्थसूची; 脚注; 注釈; 出典; 外部リンク; 関連項目; 参考文献;
  関連文献; 参照; 注; 脚註; 註釈; 関連書籍; 参考資料; 注釈・出典; 関連資料; 参考资料; 參考資料; 參考文獻; 外部链接;
  外部連結; 外部链結; 外部鏈接; 参见; 參見; 參看; 参看; 注释; 註釋; 注釋; 注解; 註解; 延伸阅读; 延伸閱讀; 相关条目;
  相關條目; 参考来源; 參考來源; 来源; 來源; 参考; 參考; 註腳; 相关链接; 扩展阅读; 擴展閱讀; 備註; 备注; 参考书目;
  參考書目; 外部连接; 引用; 資料來源; 资料来源; 參考来源; 각주; 외부 링크; 같이 보기; 참고 문헌; 참고문헌; 주해; 출처;
  참고 자료; 내용주; 외부 연결; 바깥 고리; 읽을거리; odkazy; externí odkazy; poznámky; související články;
  poznámky pod čarou; zdroje; források; jegyzetek; további információk; külső hivatkozások; kapcsolódó szócikkek;
  irodalom; legături externe; vezi și; bibliografie; referințe; lectură suplimentară; referensi; pranala luar;
  lihat pula; catatan; catatan kaki; daftar pustaka; rujukan; bacaan lanjutan; tham khảo; liên kết ngoài; xem thêm;
  chú thích; ghi chú; đọc thêm; thư mục; הערות שוליים; קישורים חיצוניים; לקריאה נוספת; ראו גם; מקורות; ביאורים;
  παραπομπές; εξωτερικοί σύνδεσμοι; δείτε επίσης; βιβλιογραφία; πηγές; σημειώσεις; референце; спољашње везе; види још;
  извори; напомене; spoljašnje veze; vidi još; izvori; referències; enllaços externs; vegeu també;
  notes i referències; atsauces; atsaucis; ārējās saites; skatīt arī; literatūra; avoti; piezīmes;
  eksterne henvisninger; se også; kilder; referanser; eksterne lenker; verweise; อ้างอิง; แหล่งข้อมูลอื่น; ดูเพิ่ม;
  หมายเหตุ; viited; vaata ka; välislingid; kirjandus; allikad; šaltiniai; nuorodos; išnašos; taip pat skaitykite;
  бележки; източници; вижте също; външни препратки; бібліяграфія; спасылкі; зноскі; крыніцы; літаратура
  '''.lower().split(';'))
# Which of a text's variants is shown, best first.
_VARIANTS = {
    'zh': ('zh', 'zh-hans', 'zh-hant', 'zh-cn', 'zh-tw', 'zh-hk', 'zh-sg', 'zh-mo', 'zh-my'),
    'gan': ('gan', 'gan-hans'),
    'sr': ('sr', 'sr-ec', 'sr-cyrl', 'sr-el'), 'sh': ('sh', 'sh-latn'), 'kk': ('kk', 'kk-cyrl', 'kk-kz'),
    'ku': ('ku', 'ku-latn'), 'uz': ('uz', 'uz-latn'), 'tg': ('tg', 'tg-cyrl'), 'shi': ('shi', 'shi-latn'),
    'crh': ('crh', 'crh-latn'), 'iu': ('iu', 'ike-cans'), 'ban': ('ban',), 'zgh': ('zgh',), 'wuu': ('wuu',),
    'tly': ('tly',), 'mni': ('mni',)}
_FLAGS = re.compile(r'\s*((?:[A-Za-z-]{1,10}\s*;?\s*)*|-)\s*$')
_MAGIC_WORD = re.compile(r'__([^\W_](?:\w*?[^\W_])?)__')
_GROUPS = {  # between thousands, and before decimals
    **dict.fromkeys(('de', 'nl', 'it', 'pt', 'tr', 'id', 'da', 'el', 'ro', 'es', 'vi', 'sr', 'hr', 'ca'), '.,'),
    **dict.fromkeys(('fr', 'ru', 'uk', 'pl', 'sv', 'fi', 'cs', 'no', 'nb', 'hu', 'bg', 'be', 'lv', 'ltg', 'lt', 'et',
                     'sk'), '\xa0,')}
_FOUR_DIGITS = frozenset({'es', 'pl', 'pt', 'bg', 'lv', 'it', 'hu', 'ca'})  # whose 1000 to 9999 are not grouped


def without_magic_words(text: str) -> str:
  """`__NOTOC__` and the like; `__init__` and other prose stay."""
  return _MAGIC_WORD.sub(lambda found: '' if found[1].lower() in _MAGIC else found[0], text) if '__' in text else text


@functools.lru_cache(maxsize=16)
def site_of(names: tuple[tuple[int, str], ...], language: str = '') -> 'Site':
  """A wiki from its (namespace number, name) pairs, as a dump's siteinfo lists them, and its language's code."""
  hidden = {name.lower() for key, name in names if key in (*_FILE_KEYS, _CATEGORY_KEY) and name}
  return Site(_ALL_HIDDEN | hidden, frozenset(name.lower() for key, name in names if key and name), language)


_ALL_HIDDEN = frozenset(name.replace('_', ' ') for name in _HIDDEN)


@dataclasses.dataclass(frozen=True)
class Site:
  """What one must know of a wiki to clean its pages; names are lower-case."""
  hidden: frozenset[str] = _ALL_HIDDEN  # a link into these shows nothing in the text: files and categories
  namespaces: frozenset[str] = frozenset()  # every namespace but the articles' own
  language: str = ''  # its code; '' where that is not known

  @property
  def has_variants(self) -> bool:
    return not self.language or self.language in _VARIANTS

  def variant(self, rule: str) -> str:
    """What -{rule}- shows: of zh-cn:A;zh-tw:B the first that readers without a preference get."""
    flags, bar, content = rule.partition('|')
    if not bar or not _FLAGS.match(flags):
      flags, content = '', rule
    given = {flag.strip() for flag in flags.split(';')}
    if given & {'H', 'T', '-', 'N', 'D'}:
      return ''
    if 'R' in given or ':' not in content:
      return content
    known = {}
    for choice in filter(str.strip, content.split(';')):
      name, colon, text = choice.partition(':')
      name = name.rpartition('=>')[2].strip().lower()
      if not colon or not re.fullmatch(r'[a-z]{2,4}(?:-[a-z]{2,4})?', name):
        return content  # a colon of prose
      known[name] = text.strip()
    order = _VARIANTS.get(self.language, _VARIANTS['zh'])
    return next((known[name] for name in order if name in known), next(iter(known.values()), ''))

  def number(self, text: str) -> str:
    """What {{formatnum:text}} shows."""
    digits = re.fullmatch(r'([-−+]?)(\d+)(?:\.(\d+))?', text.strip().replace(',', ''))
    if not digits:
      return text.strip()
    group, point = _GROUPS.get(self.language, ',.')
    short = len(digits[2]) < 5 and self.language in _FOUR_DIGITS
    whole = digits[2] if short else re.sub(r'\B(?=(?:\d{3})+$)', group, digits[2])
    return digits[1].replace('-', '−') + whole + (point + digits[3] if digits[3] else '')
