"""True captions and titles of products, in English and Korean."""

from __future__ import annotations

from fashionrec.dataset.synthetic.attributes import Product

#: Colour word to Korean.
COLORS_KO: dict[str, str] = {
    "black": "블랙", "white": "화이트", "gray": "그레이", "navy": "네이비", "blue": "블루", "sky blue": "스카이블루",
    "red": "레드", "burgundy": "버건디", "pink": "핑크", "orange": "오렌지", "yellow": "옐로우", "beige": "베이지",
    "brown": "브라운", "green": "그린", "khaki": "카키", "purple": "퍼플",
}  # fmt: skip
#: Pattern word to the English adjective and the Korean noun that captions use.
PATTERN_WORDS: dict[str, tuple[str, str]] = {
    "plain": ("plain", "무지"),
    "stripe": ("striped", "스트라이프"),
    "vertical stripe": ("vertical-striped", "세로 스트라이프"),
    "check": ("checked", "체크"),
    "dot": ("polka-dot", "도트"),
    "floral": ("floral", "플로럴"),
    "argyle": ("argyle", "아가일"),
    "camo": ("camouflage", "카모플라주"),
    "leopard": ("leopard-print", "레오파드"),
    "color block": ("color-block", "배색"),
}
_GRAPHIC_KO = {"star": "별", "heart": "하트", "bolt": "번개", "moon": "달", "flower": "꽃", "cat": "고양이"}
_SLEEVE = {"sleeveless": ("sleeveless", "민소매"), "short": ("short-sleeve", "반팔"), "long": ("long-sleeve", "긴팔")}
_NECK = {
    "round": ("round-neck", "라운드넥"),
    "v": ("V-neck", "브이넥"),
    "collar": ("collared", "카라"),
    "turtleneck": ("turtleneck", "터틀넥"),
    "hoodie": ("hooded", "후드"),
}
_LENGTH = {
    "mini": ("mini", "미니"),
    "midi": ("midi", "미디"),
    "maxi": ("maxi", "맥시"),
    "cropped": ("cropped", "크롭"),
    "full": ("full-length", "롱"),
    "long": ("longline", "롱"),
}
_FIT = {
    "slim": ("slim", "슬림"),
    "straight": ("straight", "일자"),
    "wide": ("wide-leg", "와이드"),
    "pencil": ("pencil", "H라인"),
    "a-line": ("A-line", "A라인"),
    "pleated": ("pleated", "플리츠"),
    "fitted": ("fitted", "슬림핏"),
    "oversized": ("oversized", "오버핏"),
}


def noun_en(product: Product) -> str:
    """The shop's word for it: "shirt", "hoodie", "shorts", "skort"."""
    if product.category == "top":
        if product.neckline == "hoodie":
            return "zip-up hoodie" if product.closure == "zip" else "hoodie"
        if product.neckline == "collar":
            return {"buttons": "shirt", "zip": "zip-up jacket", "none": "polo top"}[product.closure]
        if product.closure == "buttons":
            return "cardigan" if product.sleeve == "long" else "button-up top"
        return {"sleeveless": "tank top", "short": "T-shirt", "long": "sweater"}[product.sleeve]
    if product.category == "pants":
        return "shorts" if product.length == "shorts" else "pants"
    if product.category == "skirt&pants":
        return "skort" if product.length == "mini" else "culottes"
    return product.category


def noun_ko(product: Product) -> str:
    """The Korean shop's word for it."""
    if product.category == "top":
        if product.neckline == "hoodie":
            return "후드집업" if product.closure == "zip" else "후드티"
        if product.neckline == "collar":
            return {"buttons": "셔츠", "zip": "집업 재킷", "none": "카라티"}[product.closure]
        if product.closure == "buttons":
            return "가디건" if product.sleeve == "long" else "버튼 티셔츠"
        return {"sleeveless": "티셔츠", "short": "티셔츠", "long": "니트"}[product.sleeve]
    if product.category == "pants":
        return "반바지" if product.length == "shorts" else "팬츠"
    return {"dress": "원피스", "skirt": "스커트", "skirt&pants": "치마바지"}[product.category]


def _adjectives(product: Product, language: int) -> list[str]:
    """The words between colour and noun, in the order in which a shop says them; language 0
    English, 1 Korean.
    """
    words = []
    if product.pattern_scale == "bold":
        words.append(("bold", "굵은")[language])
    words.append(PATTERN_WORDS[product.pattern][language])
    if product.fit in _FIT and product.fit != "regular":
        words.append(_FIT[product.fit][language])
    if product.length in _LENGTH:
        words.append(_LENGTH[product.length][language])
    if product.sleeve:
        words.append(_SLEEVE[product.sleeve][language])
    if product.neckline and not (language and product.neckline == "hoodie"):
        words.append(_NECK[product.neckline][language])
    return words


def caption_en(product: Product) -> str:
    """A true English caption, such as "A navy and white striped short-sleeve round-neck top"."""
    colors = product.color
    if product.second_color != "none" and product.pattern != "plain":
        colors += f" and {product.second_color}"
    noun = noun_en(product) if product.category in ("pants", "skirt&pants") else product.category
    article = "" if noun in ("pants", "shorts", "culottes") else "An " if colors.startswith("orange") else "A "
    text = f"{article}{colors} {' '.join(_adjectives(product, 0))} {noun}"
    if product.closure in ("buttons", "zip"):
        text += " with buttons" if product.closure == "buttons" else " with a zip"
    if product.graphic not in ("", "none"):
        text += f" with {_article(product.second_color)} {product.second_color} {product.graphic} print"
    return text[0].upper() + text[1:]


def caption_ko(product: Product) -> str:
    """A true Korean caption as a noun phrase, such as "네이비 화이트 스트라이프 반팔 라운드넥 티셔츠"."""
    colors = COLORS_KO[product.color]
    if product.second_color != "none" and product.pattern != "plain":
        colors += f" {COLORS_KO[product.second_color]}"
    words = [colors, *_adjectives(product, 1)]
    if product.graphic not in ("", "none"):
        words.append(f"{COLORS_KO[product.second_color]} {_GRAPHIC_KO[product.graphic]} 프린트")
    noun = noun_ko(product)
    if product.neckline == "collar" and noun == "카라티":
        words.remove("카라")
    if product.closure == "buttons" and noun in ("원피스", "스커트"):
        words.append("버튼")
    return " ".join([*words, noun])


def title(product: Product, brand: str) -> str:
    """The product's name in the shop, such as "Haneul Navy Striped Shirt"."""
    words = [product.color, PATTERN_WORDS[product.pattern][0] if product.pattern != "plain" else "", noun_en(product)]
    if product.graphic not in ("", "none"):
        words[1] = product.graphic
    if product.category in ("dress", "skirt"):
        words.insert(2, product.length)
    return f"{brand} " + " ".join(word[0].upper() + word[1:] for word in " ".join(words).split())


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
