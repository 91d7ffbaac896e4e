"""The words of the sky, the land and the weather, in English and Vietnamese.

A concept is a label of the scene with the values that it accepts: `("light", ("sun",))` is "the
sun", `("light", ("full moon", "crescent moon"))` is "the moon". Synonyms are separated by "|", the
usual ones first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .words import Choice, Language

__all__ = ["ALSO", "SCENE_WORDS", "TINTS", "Words"]


@dataclass(frozen=True)
class Words:
    """The synonyms of one concept in one language.

    Args:
        adverbs: Forms that continue a sentence, separated by "|".
        nouns: Forms that stand in a list, separated by "|".
        tags: Forms that stand only between commas, separated by "|".
    """

    adverbs: str = ""
    nouns: str = ""
    tags: str = ""


def _pair(en: Words, vi: Words) -> dict[Language, Words]:
    return {"en": en, "vi": vi}


_MOONS = ("full moon", "crescent moon")

SCENE_WORDS: Mapping[tuple[str, Choice], Mapping[Language, Words]] = {
    ("time", ("day",)): _pair(
        Words(
            "by day|during the day|in the daytime|in daylight|at noon",
            "day|daytime|daylight|midday",
        ),
        Words(
            "vào ban ngày|ban ngày|giữa ban ngày|vào buổi trưa",
            "ban ngày|trời sáng|buổi trưa|giữa trưa",
        ),
    ),
    ("time", ("dawn",)): _pair(
        Words(
            "at dawn|at sunrise|at daybreak|in the early morning",
            "dawn|sunrise|early morning|daybreak",
        ),
        Words(
            "lúc bình minh|vào lúc bình minh|lúc rạng đông|vào sáng sớm|khi mặt trời mọc",
            "bình minh|sáng sớm|rạng đông|cảnh bình minh",
        ),
    ),
    ("time", ("sunset",)): _pair(
        Words("at sunset|at dusk|in the sunset|at twilight", "sunset|dusk|twilight|a sunset sky"),
        Words(
            "lúc hoàng hôn|vào lúc hoàng hôn|lúc chiều tà|vào buổi chiều tà|khi mặt trời lặn",
            "hoàng hôn|chiều tà|xế chiều|cảnh hoàng hôn",
        ),
    ),
    ("time", ("night",)): _pair(
        Words(
            "at night|by night|under a night sky|in the night|under the stars|under a starry sky",
            "night|nighttime|a night sky|night time|a starry night|midnight",
        ),
        Words(
            "vào ban đêm|ban đêm|vào buổi tối|trong đêm|dưới bầu trời đêm|dưới bầu trời đầy sao",
            "ban đêm|đêm|buổi tối|đêm khuya|bầu trời đêm|đêm đầy sao|trời tối",
        ),
    ),
    ("time", ("dawn", "day")): _pair(
        Words("in the morning", "morning"), Words("vào buổi sáng", "buổi sáng")
    ),
    ("time", ("sunset", "night")): _pair(
        Words("in the evening", "evening"), Words("vào chập tối", "chập tối")
    ),
    ("time", ("day", "sunset")): _pair(
        Words("in the afternoon", "afternoon"), Words("vào buổi chiều", "buổi chiều")
    ),
    ("ground", ("meadow",)): _pair(
        Words(
            "on a meadow|in a meadow|on green grass|on the grass|in a green field|in the fields",
            "a meadow|green grass|meadow|grass|grassland|a green field|green hills",
        ),
        Words(
            "trên đồng cỏ|trên bãi cỏ|trên cỏ|trên thảm cỏ xanh|giữa đồng cỏ",
            "đồng cỏ|bãi cỏ|đồng cỏ xanh|cánh đồng|thảo nguyên|cỏ xanh",
        ),
    ),
    ("ground", ("desert",)): _pair(
        Words(
            "in the desert|in a desert|on the sand|among sand dunes",
            "desert|a desert|sand dunes|dunes|a sandy desert|sand",
        ),
        Words(
            "trên sa mạc|giữa sa mạc|trong sa mạc|trên cát|giữa hoang mạc",
            "sa mạc|hoang mạc|đồi cát|cồn cát|cát",
        ),
    ),
    ("ground", ("snow",)): _pair(
        Words(
            "in the snow|on the snow|in a snowy field|on a snow field|in winter|on snowy ground",
            "snow|a snowy field|snow field|winter|a snowy landscape|snow on the ground",
        ),
        Words(
            "trên tuyết|giữa tuyết trắng|trên cánh đồng tuyết|trên nền tuyết|vào mùa đông",
            "tuyết|cánh đồng tuyết|tuyết trắng|mùa đông|mặt đất phủ tuyết",
        ),
    ),
    ("ground", ("sea",)): _pair(
        Words(
            "at sea|by the sea|on the sea|on the water|by the ocean|at the seaside|on the coast",
            "sea|the sea|blue sea|ocean|the ocean|seaside|a beach|water|coast",
        ),
        Words(
            "trên biển|bên bờ biển|ngoài biển|trên mặt biển|ở biển|ngoài khơi",
            "biển|biển xanh|bờ biển|đại dương|mặt biển|bãi biển",
        ),
    ),
    ("weather", ("clear",)): _pair(
        Words("in clear weather|under a clear sky", "clear weather|clear sky|a clear sky"),
        Words("khi trời quang|dưới bầu trời quang đãng", "trời quang|trời quang đãng|trời trong"),
    ),
    ("weather", ("rain",)): _pair(
        Words(
            "in the rain|in rainy weather|while it is raining",
            "rain|rainy|falling rain|it is raining|rainy weather",
        ),
        Words("dưới mưa|trong mưa|khi trời mưa", "mưa|trời mưa|trời đang mưa|mưa rơi|cơn mưa"),
    ),
    ("weather", ("snowfall",)): _pair(
        Words(
            "while snow is falling|in falling snow|in a snowfall|while it is snowing",
            "falling snow|snowfall|snow is falling|it is snowing|snowing|snowflakes",
        ),
        Words(
            "dưới tuyết rơi|khi tuyết rơi|khi tuyết đang rơi",
            "tuyết rơi|tuyết đang rơi|trời đang có tuyết rơi|bông tuyết",
        ),
    ),
    ("light", ("sun",)): _pair(
        Words(
            "under the sun|in the sun|in the sunshine",
            "the sun|a sun|a bright sun",
            "sun|sunny|sunshine",
        ),
        Words(
            "dưới mặt trời|dưới ánh nắng|dưới nắng",
            "mặt trời|ông mặt trời",
            "trời nắng|nắng|có mặt trời",
        ),
    ),
    ("light", ("full moon",)): _pair(
        Words(
            "under a full moon|under the full moon",
            "a full moon|the full moon|a round moon",
            "full moon",
        ),
        Words("dưới trăng tròn|dưới ánh trăng tròn", "trăng tròn|mặt trăng tròn|trăng rằm"),
    ),
    ("light", ("crescent moon",)): _pair(
        Words(
            "under a crescent moon|under the crescent moon",
            "a crescent moon|the crescent moon|a half moon",
            "crescent moon|crescent",
        ),
        Words(
            "dưới trăng khuyết|dưới trăng lưỡi liềm",
            "trăng khuyết|trăng lưỡi liềm|mặt trăng khuyết|trăng non",
        ),
    ),
    ("light", _MOONS): _pair(
        Words("under the moon|in the moonlight", "the moon|a moon|moonlight", "moon"),
        Words("dưới ánh trăng|dưới mặt trăng", "mặt trăng|ánh trăng|ông trăng"),
    ),
    ("light", ("none", *_MOONS)): _pair(
        Words("without sun|without the sun", "no sun"),
        Words("", "không có mặt trời|không mặt trời"),
    ),
    ("light", ("none", "sun")): _pair(
        Words("without a moon|without moon", "no moon"),
        Words("", "không có trăng|không trăng|không có mặt trăng"),
    ),
    ("mountains", ("none",)): _pair(
        Words("without mountains|without any mountains", "no mountains"),
        Words("", "không có núi|không núi"),
    ),
    ("mountains", ("bare",)): _pair(
        Words(
            "in front of bare mountains|in front of rocky mountains",
            "bare mountains|rocky mountains|mountains without snow|grey mountains",
        ),
        Words("trước dãy núi đá", "núi đá|dãy núi đá|núi không có tuyết|núi trọc"),
    ),
    ("mountains", ("snowy",)): _pair(
        Words(
            "in front of snowy mountains|below snowy mountains|in front of snow capped mountains",
            "snowy mountains|snow capped mountains|snowy peaks|mountains with snow"
            "|white mountains|mountains covered in snow|a snowy mountain",
        ),
        Words(
            "trước dãy núi tuyết|trước những ngọn núi tuyết|dưới chân núi tuyết",
            "núi tuyết|núi phủ tuyết|dãy núi tuyết|những ngọn núi tuyết|núi có tuyết"
            "|ngọn núi tuyết",
        ),
    ),
    ("mountains", ("bare", "snowy")): _pair(
        Words(
            "in front of mountains|in the mountains|in front of the mountains",
            "mountains|the mountains|a mountain|high mountains|peaks",
            "mountain",
        ),
        Words(
            "trước dãy núi|trước những ngọn núi|dưới chân núi",
            "núi|dãy núi|những ngọn núi|ngọn núi|đồi núi|núi cao|núi non",
        ),
    ),
    ("clouds", ("0",)): _pair(
        Words("without clouds|under a cloudless sky", "no clouds|a cloudless sky|not a cloud"),
        Words("", "không có mây|không mây|trời không mây|không một gợn mây"),
    ),
    ("clouds", ("1",)): _pair(
        Words("under a cloud|under one cloud", "one cloud|a cloud|a single cloud|1 cloud"),
        Words("dưới một đám mây", "một đám mây|một áng mây|1 đám mây"),
    ),
    ("clouds", ("2",)): _pair(
        Words("under two clouds", "two clouds|2 clouds|a pair of clouds|two white clouds"),
        Words("dưới hai đám mây", "hai đám mây|2 đám mây|hai áng mây|hai đám mây trắng"),
    ),
    ("clouds", ("3",)): _pair(
        Words("under three clouds", "three clouds|3 clouds|three white clouds"),
        Words("dưới ba đám mây", "ba đám mây|3 đám mây|ba áng mây|ba đám mây trắng"),
    ),
    ("clouds", ("2", "3")): _pair(
        Words("under a few clouds", "a few clouds|several clouds|many clouds"),
        Words("dưới vài đám mây", "vài đám mây|nhiều đám mây", "nhiều mây"),
    ),
    ("clouds", ("1", "2", "3")): _pair(
        Words(
            "under a cloudy sky",
            "clouds|some clouds|white clouds",
            "clouds|cloudy|a cloudy sky|cloud",
        ),
        Words("dưới mây", "mây|mây trắng|những đám mây", "mây|có mây|đám mây|áng mây"),
    ),
    ("rainbow", ("yes",)): _pair(
        Words("under a rainbow|under the rainbow", "a rainbow|the rainbow", "rainbow"),
        Words("dưới cầu vồng", "cầu vồng|một cầu vồng|chiếc cầu vồng|cầu vồng bảy sắc"),
    ),
    ("rainbow", ("none",)): _pair(
        Words("without a rainbow", "no rainbow"), Words("", "không có cầu vồng|không cầu vồng")
    ),
    ("balloon", ("none",)): _pair(
        Words("without a balloon", "no balloon|no hot air balloon"),
        Words("", "không có khinh khí cầu|không khinh khí cầu"),
    ),
}
"""Words of the sky, the land and the weather: (label, accepted values) -> language -> forms."""

ALSO: Mapping[Language, Mapping[str, tuple[str, Choice]]] = {
    "en": {
        "blue sky": ("time", ("day",)),
        "stars": ("time", ("night",)),
        "starry": ("time", ("night",)),
        "starry sky": ("time", ("night",)),
        "snowy": ("ground", ("snow",)),
        "snow covered": ("ground", ("snow",)),
        "raining": ("weather", ("rain",)),
        "moonlit": ("light", _MOONS),
        "clouds in the sky": ("clouds", ("1", "2", "3")),
    },
    "vi": {
        "trời xanh": ("time", ("day",)),
        "bầu trời xanh": ("time", ("day",)),
        "tối": ("time", ("night",)),
        "ngôi sao": ("time", ("night",)),
        "đầy sao": ("time", ("night",)),
        "trăng": ("light", _MOONS),
        "cỏ": ("ground", ("meadow",)),
        "phủ tuyết": ("ground", ("snow",)),
    },
}
"""Forms that are understood, but that captions do not write."""

TINTS: Mapping[str, frozenset[str]] = {
    "ground": frozenset({"green", "blue", "yellow", "white", "orange", "brown"}),
    "light": frozenset({"yellow", "white", "orange"}),
    "clouds": frozenset({"white"}),
    "mountains": frozenset({"white", "brown"}),
    "time": frozenset({"black", "blue"}),
    "pine": frozenset({"green"}),
    "palm": frozenset({"green"}),
    "cactus": frozenset({"green"}),
    "whale": frozenset({"blue"}),
}
"""Colours that a concept without a colour of its own has by nature: no surprise in a prompt."""
