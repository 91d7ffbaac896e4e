"""The words of the picture book: things, colours, places, numbers, in English and Vietnamese.

One table of synonyms per concept. Captions are written from these tables and prompts are read with
them, so that a prompt is understood exactly when the networks have met its words. The words of the
sky and the land are in `scenery`.

Conventions: synonyms are separated by "|", the usual ones first; everything is lower case and in
Unicode normal form C. English nouns come as "one/many".
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Literal

from .scene import COLOURS, KINDS

__all__ = [
    "BALLOONS",
    "COLOUR_WORDS",
    "FILLERS",
    "KIND_WORDS",
    "LANGUAGES",
    "LINKS",
    "NUMBERS",
    "PART_WORDS",
    "SEVERAL",
    "SIZE_WORDS",
    "SLOT_WORDS",
    "Choice",
    "Language",
    "fold",
]

Language = Literal["en", "vi"]
LANGUAGES: tuple[Language, ...] = ("en", "vi")
Choice = tuple[str, ...]
"""Accepted values of an attribute; empty where nothing is asked."""


def fold(text: str) -> str:
    """The text without diacritics: "màu đỏ" -> "mau do", as it is often typed."""
    plain = unicodedata.normalize("NFD", text.replace("đ", "d").replace("Đ", "D"))
    return "".join(letter for letter in plain if not unicodedata.combining(letter))


BALLOONS: Mapping[Language, str] = {
    "en": "hot-air balloon/hot-air balloons|balloon/balloons",
    "vi": "khinh khí cầu|khí cầu",
}
"""Names of the balloon, which alone among the things of the sky has a colour."""

KIND_WORDS: Mapping[str, Mapping[Language, str]] = {
    "house": {"en": "house/houses|cottage/cottages|home/homes", "vi": "ngôi nhà|căn nhà|nhà"},
    "castle": {"en": "castle/castles|palace/palaces", "vi": "lâu đài|tòa lâu đài|toà lâu đài"},
    "windmill": {"en": "windmill/windmills|mill/mills", "vi": "cối xay gió|chiếc cối xay gió"},
    "lighthouse": {"en": "lighthouse/lighthouses", "vi": "ngọn hải đăng|hải đăng"},
    "tent": {"en": "tent/tents", "vi": "chiếc lều|cái lều|lều|lều trại|túp lều"},
    "pine": {
        "en": "pine/pines|pine tree/pine trees|fir tree/fir trees|fir/firs",
        "vi": "cây thông|thông",
    },
    "tree": {"en": "tree/trees|round tree/round trees", "vi": "cái cây|cây|cây tán tròn"},
    "palm": {"en": "palm tree/palm trees|palm/palms", "vi": "cây cọ|cây dừa|dừa"},
    "cactus": {"en": "cactus/cactuses|cactus/cacti", "vi": "cây xương rồng|xương rồng"},
    "flower": {"en": "flower/flowers|blossom/blossoms", "vi": "bông hoa|hoa|đóa hoa|đoá hoa"},
    "mushroom": {"en": "mushroom/mushrooms|toadstool/toadstools", "vi": "cây nấm|nấm|chiếc nấm"},
    "snowman": {"en": "snowman/snowmen", "vi": "người tuyết|chú người tuyết|ông người tuyết"},
    "boat": {
        "en": "boat/boats|sailboat/sailboats|sailing boat/sailing boats|ship/ships",
        "vi": "chiếc thuyền|con thuyền|thuyền|chiếc thuyền buồm|thuyền buồm",
    },
    "whale": {"en": "whale/whales", "vi": "con cá voi|cá voi|chú cá voi"},
}
"""Names of the things."""

COLOUR_WORDS: Mapping[Choice, Mapping[Language, str]] = {
    ("red",): {"en": "red|crimson|scarlet", "vi": "đỏ"},
    ("orange",): {"en": "orange", "vi": "cam|da cam"},
    ("yellow",): {"en": "yellow|golden", "vi": "vàng"},
    ("green",): {"en": "green", "vi": "xanh lá|xanh lá cây|xanh lục"},
    ("blue",): {"en": "blue", "vi": "xanh dương|xanh nước biển|xanh lam|xanh da trời"},
    ("purple",): {"en": "purple|violet", "vi": "tím"},
    ("pink",): {"en": "pink", "vi": "hồng"},
    ("brown",): {"en": "brown", "vi": "nâu"},
    ("white",): {"en": "white", "vi": "trắng"},
    ("black",): {"en": "black", "vi": "đen"},
    ("green", "blue"): {"en": "", "vi": "xanh"},
}
"""Colours. Vietnamese "xanh" alone is blue or green: either satisfies it."""

SIZE_WORDS: Mapping[Choice, Mapping[Language, str]] = {
    ("small",): {"en": "small|little|tiny", "vi": "nhỏ|bé|nhỏ bé|nhỏ xíu"},
    ("large",): {"en": "large|big|huge|tall", "vi": "lớn|to|to lớn|khổng lồ"},
}

SLOT_WORDS: Mapping[Choice, Mapping[Language, str]] = {
    ("left",): {
        "en": "on the left|to the left|on the left side|at the left|left|left side",
        "vi": "ở bên trái|bên trái|phía bên trái|ở phía bên trái|phía trái|bên tay trái",
    },
    ("middle",): {
        "en": "in the middle|in the centre|in the center|at the centre|middle|centre|center",
        "vi": "ở giữa|chính giữa|ở chính giữa|ở trung tâm|nằm ở giữa",
    },
    ("right",): {
        "en": "on the right|to the right|on the right side|at the right|right|right side",
        "vi": "ở bên phải|bên phải|phía bên phải|ở phía bên phải|phía phải|bên tay phải",
    },
}

PART_WORDS: Mapping[str, Mapping[Language, str]] = {
    "roof": {"en": "roof/roofs", "vi": "mái|mái nhà|mái ngói"},
    "sail": {"en": "sail/sails", "vi": "buồm|cánh buồm"},
    "scarf": {"en": "scarf/scarves", "vi": "khăn quàng|khăn|khăn choàng"},
    "walls": {"en": "wall/walls", "vi": "tường"},
    "hull": {"en": "hull/hulls", "vi": "thân thuyền|thân"},
    "leaves": {"en": "leaf/leaves", "vi": "tán lá|lá"},
}
"""Parts of things. The first three carry the second colour, the others the thing's own."""

NUMBERS: Mapping[Language, Mapping[str, int]] = {
    "en": dict(
        zip("one two three four five six seven eight nine ten".split(), range(1, 11), strict=True)
    )
    | {"another": 1, "the other": 1, "a pair of": 2, "a couple of": 2, "both": 2, "zero": 0},
    "vi": dict(zip("một hai ba bốn năm sáu bảy tám chín mười".split(), range(1, 11), strict=True))
    | {"một đôi": 2, "đôi": 2, "một cặp": 2, "cặp": 2},
}

LINKS: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "and": "and", "or": "and", "plus": "and", "with": "with", "has": "with", "have": "with",
        "having": "with", "a": "article", "an": "article", "the": "article", "no": "no",
        "not": "no", "sky": "sky", "without": "no", "with no": "no", "roofed": "parted",
    },
    "vi": {
        "và": "and", "cùng": "and", "hoặc": "and", "có": "with", "với": "with", "cùng với": "with",
        "không": "no", "không có": "no", "chẳng có": "no", "không phải": "no",
        "bầu trời": "sky", "trời": "sky",
    },
}  # fmt: skip
"""Words that join others, by what they do."""

SEVERAL: Mapping[Language, str] = {
    "en": "some|several|a few|many|a lot of|lots of|a group of|multiple",
    "vi": "những|vài|nhiều|các|một vài",
}
"""Words that ask for more than one without saying how many."""

FILLERS: Mapping[Language, str] = {
    "en": (
        "this|that|these|those|it|its|is|are|be|there|of|at|to|on|in|by|from|for|under|over"
        "|above|below|behind|beside|near|next to|in front of|between|among|up|down|where"
        "|which|who|while|stands|standing|stand|sits|sitting|lies|floats|floating|sails"
        "|sailing|wearing|wears|flies|flying|shines|shining|s|t|i|me|please|draw|paint|show|make|create"
        "|want|you|we|see|can|picture of|picture|pictures|image of|image|drawing of|drawing"
        "|painting of|painting|scene|scenery|landscape with|landscape|illustration of"
        "|illustration|view|background|foreground|in the sky|in the background|painted"
        "|coloured|colored|colour|color|colours|colors|beautiful|pretty|nice|lovely|cute|cosy"
        "|cozy|calm|quiet|peaceful|side|very|just|only|also|here|as|all|any|both of them"
        "|of them|them|so|one of them"
    ),
    "vi": (
        "ngôi|căn|cái|quàng|đeo|choàng|chiếc|con|bông|ngọn|tòa|toà|đóa|đoá|túp|chú|ông|tấm|bức|là|ở|giữa|trong"
        "|trên|dưới|ngoài|bên|cạnh|bên cạnh|gần|trước|sau|phía|phía trước|phía sau|phía xa"
        "|đằng xa|xa xa|nền|vào|lúc|khi|của|cho|được|bị|thì|này|kia|ấy|nằm|đứng|bay|đậu|trôi"
        "|mọc|chiếu|đang|màu|sắc|sơn|trên trời|trên bầu trời|ngồi|phong cảnh|khung cảnh|cảnh"
        "|bức tranh|tranh|tranh vẽ|hình|ảnh|bức ảnh|hình ảnh|vẽ|hãy vẽ|hãy|tôi|em|muốn|thấy"
        "|đẹp|xinh|xinh xắn|dễ thương|yên bình|rất|thật|cũng|nữa|đều|nhau|như|mà|từ|tới|đến"
        "|một bức tranh|cả|chỉ|ra|lên|xuống"
    ),
}
"""Words that carry nothing to draw and are passed over in silence."""

assert set(KIND_WORDS) == set(KINDS) and {(c,) for c in COLOURS} < set(COLOUR_WORDS)
